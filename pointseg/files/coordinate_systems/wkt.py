"""Well-known text of coordinate systems as a tree, within bounds: versions 1 and 2, and what ESRI writes.

Source: OGC 18-010r11 (WKT 2), OGC 01-009 (WKT 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MOST_CHARACTERS = 200_000
DEEPEST = 50
_TOKEN = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([A-Za-z_][\w.]*)|([-+]?[\d.][\w.+-]*)|([\[\](),]))')


class WktError(ValueError):
    """Text that is no well-known text, or too long or deep."""


@dataclass(frozen=True)
class Node:
    """One pair of brackets."""

    keyword: str
    """The word before it, in capitals."""
    values: tuple[str | float | Node, ...]
    """Texts, numbers and nodes between them; words without quotes are texts."""

    @property
    def name(self) -> str:
        """The first text in it; "" where there is none."""
        return next((value for value in self.values if isinstance(value, str)), "")

    def children(self, *keywords: str) -> Iterator[Node]:
        """The nodes directly inside it, of these keywords; all without keywords."""
        for value in self.values:
            if isinstance(value, Node) and (not keywords or value.keyword in keywords):
                yield value

    def number(self, place: int) -> float | None:
        """The value at a place, if it is a number."""
        found = self.values[place] if place < len(self.values) else None
        return found if isinstance(found, float) else None


def parse_wkt(text: str) -> list[Node]:
    """The nodes that a text holds, side by side as ESRI writes horizontal and vertical systems.

    Raises:
        WktError: it is not of this form, or beyond the bounds.
    """
    if len(text) > MOST_CHARACTERS:
        raise WktError(f"it has {len(text)} characters")
    text, at = text.strip("\0 \t\r\n"), 0
    found: list[Node] = []
    open_nodes: list[tuple[str, list[str | float | Node]]] = []
    word: str | None = None
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise WktError(f"'{text[at : at + 20]}' at character {at}")
        at = match.end()
        quoted, bare, number, mark = match.groups()
        if mark is not None and mark in "[(":
            if word is None or len(open_nodes) >= DEEPEST:
                raise WktError(
                    f"a bracket without a word before it, or too deep, at character {at}"
                )
            open_nodes.append((word.upper(), []))
            word = None
            continue
        if word is not None:  # a direction of an axis, or the like
            _add(open_nodes, word)
            word = None
        if mark is not None and mark in "])":
            if not open_nodes:
                raise WktError(f"a bracket too many at character {at}")
            keyword, values = open_nodes.pop()
            node = Node(keyword, tuple(values))
            if open_nodes:
                open_nodes[-1][1].append(node)
            else:
                found.append(node)
        elif quoted is not None:
            _add(open_nodes, quoted.replace('""', '"'))
        elif number is not None:
            _add(open_nodes, _number(number))
        elif bare is not None:
            word = bare
    if open_nodes or word is not None or not found:
        raise WktError("it ends too early")
    return found


def _add(open_nodes: list[tuple[str, list[str | float | Node]]], value: str | float) -> None:
    if not open_nodes:
        raise WktError(f"'{value}' outside of brackets")
    open_nodes[-1][1].append(value)


def _number(text: str) -> str | float:
    """Dates and the like begin with a digit, too, and stay text."""
    try:
        return float(text)
    except ValueError:
        return text
