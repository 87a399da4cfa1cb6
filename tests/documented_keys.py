"""The keys of --json that docs/json_output.md promises."""

from __future__ import annotations

import json
import re
from typing import Any

from tests import ROOT


def documented(kind: str) -> set[str]:
    """Keys of the object with this ``format``, itself included."""
    page = (ROOT / "docs" / "json_output.md").read_text(encoding="utf-8")
    (row,) = [line for line in page.splitlines() if f"| `{kind}` |" in line]
    return {"format", *re.findall(r"`(\w+)`", row.split("|")[3])}


def read_json(printed: str) -> dict[str, Any]:
    """What a command printed with --json: JSON alone, without NaN, with the documented keys and no others."""

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found: dict[str, Any] = json.loads(printed, parse_constant=refuse)
    keys = documented(found["format"])
    if found["format"] == "pointseg-test-1":  # those of metrics.json, too
        assert keys <= found.keys()
    else:
        assert found.keys() == keys
    return found
