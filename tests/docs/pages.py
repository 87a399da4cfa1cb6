"""The written pages and their fenced blocks."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from tests import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
WRITTEN = [*PAGES, *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "AGENTS.md"))]


@dataclass(frozen=True)
class Block:
    """What stands between two fences."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def named(page) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def blocks() -> tuple[Block, ...]:
    """Fenced blocks of all written pages, in their order; also those in lists, which are indented."""
    found = []
    for page in WRITTEN:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^( *)```(.*)\n([\s\S]*?)^\1```$", text, re.MULTILINE):
            indent, language, content = match.groups()
            line = text.count("\n", 0, match.start()) + 1
            content = re.sub(f"^{indent}", "", content, flags=re.MULTILINE)
            found.append(Block(named(page), line, language.strip(), content))
        assert text.count("```") == 2 * sum(block.page == named(page) for block in found), page
    return tuple(found)


def block(page: str, marker: str) -> str:
    """The one block of a page in which `marker` stands."""
    (found,) = (b for b in blocks() if b.page == page and marker in b.text)
    return found.text
