"""--json: one object alone on stdout, plain numbers, NaN as null, keys as documented."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from dinomed3d.runtime.commands.json_output import json_alone, plain, print_json
from tests import ROOT
from tests.documented_keys import documented


@dataclass(frozen=True)
class Row:
    name: str
    score: float


def test_values_of_all_kinds(capsys):
    content = {
        "rows": (Row("a", float("nan")), Row("b", np.float32(0.5))),
        "counts": np.array([1, 2]),
        "whole": np.int64(3),
        "is": np.bool_(True),
        "path": Path("x") / "y",
        2: set("hgfedcba"),
        "far": [float("inf"), -float("inf"), 1.5],
    }
    print_json("test-1", content)
    assert json.loads(capsys.readouterr().out) == {
        "format": "test-1",
        "rows": [{"name": "a", "score": None}, {"name": "b", "score": 0.5}],
        "counts": [1, 2],
        "whole": 3,
        "is": True,
        "path": str(Path("x") / "y"),
        "2": list("abcdefgh"),
        "far": [None, None, 1.5],
    }


def test_what_json_lacks_is_refused():
    with pytest.raises(TypeError, match="content"):
        plain({"a": object()})


def test_stdout_holds_json_alone(capsys):
    with json_alone(True):
        print("a library's own words")
    print_json("test-1", {"name": "naïve\x1b\udcff"})
    printed = capsys.readouterr()
    assert json.loads(printed.out)["format"] == "test-1" and printed.out.isascii()
    assert printed.err == "a library's own words\n"
    with json_alone(False):
        print("text")
    assert capsys.readouterr().out == "text\n" and sys.stdout is not sys.stderr


def test_every_format_is_documented():
    code = [p for name in ("dinomed3d", "pointseg") for p in (ROOT / name / "cli").rglob("*.py")]
    found = {
        kind
        for path in code
        for kind in re.findall(r'print_json\(\s*"([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(found) >= 10 and all(documented(kind) for kind in found)
