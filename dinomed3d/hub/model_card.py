"""What model cards of the Hugging Face hub have in common: front matter, licences, tables."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

LICENCE_FILE = "LICENSE.txt"
"""Name of the licence's text in a repository."""
DINOV3 = {"license": "other", "license_name": "dinov3-license"}
KNOWN = (
    ("Attribution-NonCommercial 4.0", {"license": "cc-by-nc-4.0"}),
    ("CC-BY-NC 4.0", {"license": "cc-by-nc-4.0"}),
    ("DINOv3", DINOV3),
    ("Apache License", {"license": "apache-2.0"}),
    ("Attribution 4.0", {"license": "cc-by-4.0"}),
    ("MIT License", {"license": "mit"}),
)
"""Words of a licence -> its entries in the front matter, the strictest first."""
SEVERAL = {"license": "other", "license_name": "several-licences"}
_MENTIONS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?i)(?<!commercial or )(?<!commercial and )\b(non|no|not for)[- ]?commercial|\bCC[- ]BY[- ]NC\b",
        r"(?i)\bDINOv3",
        r"(?i)\bApache\b",
        r"(?i)\bAttribution \d|\bCC[- ]BY[- ]\d",
        r"(?i)\bShare-?Alike\b|\bNo-?Deriv|\bCC[- ]BY(-NC)?[- ](SA|ND)\b",
        r"\bMIT\b|(?i:Permission is hereby granted, free of charge)",
        r"\b[AL]?GPL|(?i:General Public Licen[cs]e)",
        r"\bBSD\b|(?i:Redistribution and use in source and binary forms)",
        r"\bMPL\b|(?i:Mozilla Public Licen[cs]e)",
        r"\b(EUPL|CeCILL|EPL)\b|(?i:European Union Public Licen[cs]e|Eclipse Public Licen[cs]e)",
        r"\bRAIL\b|(?i:\bOpenRAIL|\bLlama\b)",
    )
)
"""Of each family of licences, how texts mention it; CC0 demands nothing, and texts of Creative Commons mention it."""
NOT_A_DEVICE = (
    "**This is a research model, not a medical device.** It must not be used for diagnosis or treatment, and nobody "
    "has tested it for that."
)
_MARK = re.compile(r"\n<!-- Made from the model, digest ([0-9a-f]{64}) -->\n\Z")
_FRONT_MATTER = re.compile(r"\A---\n.*?^---\s*$", re.DOTALL | re.MULTILINE)
_SPECIAL = re.compile(r"([\\`*_\[\]<>|#~$])")


def marked(card: str) -> str:
    """A card with a comment at its end that says that nobody has changed it."""
    digest = hashlib.sha256(card.encode("utf-8")).hexdigest()
    return f"{card}\n<!-- Made from the model, digest {digest} -->\n"


def is_written_by_somebody(card: str) -> bool:
    """Whether a card has words that were not made from a model: it is not marked, or was changed since."""
    found = _MARK.search(card)
    if found is not None:
        return marked(card[: found.start()]) != card
    return bool(_FRONT_MATTER.sub("", card).strip())


def front_matter(entries: Mapping[str, Any]) -> str:
    """The head of a card, which the hub reads, as YAML between two lines."""
    import yaml

    text = yaml.safe_dump(dict(entries), sort_keys=False, allow_unicode=True, width=10_000)
    return f"---\n{text}---\n"


def licence_entries(text: str | None, *, has_file: bool) -> dict[str, str]:
    """The front matter's entries of a licence.

    Of a text that mentions several licences none is declared: which of them binds whom, only a reader knows.

    Args:
        text: of the licence, or its name; None where there is none.
        has_file: whether its text lies in the repository.
    """
    if text is None or not text.strip():
        return {}
    found = next((entries for words, entries in KNOWN if words in text), None)
    if found is not None and _families(text) > 1:
        found = SEVERAL
    if found is None:
        first = next(line for line in text.splitlines() if line.strip())
        name = re.sub(r"[^a-z0-9.]+", "-", first.lower()).strip("-")[:60] or "see-licence"
        found = {"license": "other", "license_name": name}
    if found["license"] == "other" and has_file:
        found = {**found, "license_link": LICENCE_FILE}
    return dict(found)


def _families(text: str) -> int:
    """How many families of licences a text mentions."""
    line = " ".join(text.split())
    return sum(pattern.search(line) is not None for pattern in _MENTIONS)


def plain(text: object) -> str:
    """A name as Markdown that shows it as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; its cells are shown as they are."""
    lines = [head, ["---"] * len(head), *([plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
