"""Every fenced block of every page is run, read or parsed by a test, or stands here with the reason why not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.docs.pages import Block, blocks

PARSED = {"bash", "powershell", "cron"}
"""Languages of which test_commands.py parses every command."""
NOT_RUN = {
    "text": "shows what a command prints, or a formula",
    "bibtex": "for papers",
}
"""Languages of blocks that nobody types."""
ON_LINUX_ALONE = {
    "docs/how_to/cluster.md": "SLURM's nodes run Linux",
    "docs/tutorials/hospital_night.md": "cron and systemd",
}
"""Pages whose variables need no PowerShell."""


def asked_for() -> set[tuple[str, str]]:
    """Page and marker of each call of `block` in the tests of this folder, as they are written."""
    found = set()
    for file in Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "block":
                page, marker = (ast.literal_eval(argument) for argument in node.args)
                found.add((page, marker))
    return found


def is_covered(found: Block, asked: set[tuple[str, str]]) -> bool:
    if found.language in PARSED | NOT_RUN.keys():
        return True
    return any(page == found.page and marker in found.text for page, marker in asked)


def test_every_block_is_tested():
    asked = asked_for()
    assert [b.place for b in blocks() if not is_covered(b, asked)] == []


@pytest.mark.parametrize("page", sorted({b.page for b in blocks()} - ON_LINUX_ALONE.keys()))
def test_variables_stand_for_powershell_as_well(page):
    own = [b.text for b in blocks() if b.page == page]
    exported = re.findall(r"^export ([^#\n]+)", "\n".join(own), re.MULTILINE)
    names = {name for words in exported for name in re.findall(r"(\w+)=", words)}
    given = set(re.findall(r"\$env:(\w+) =", "\n".join(own)))
    assert names - given == set()
