"""All files below a folder, in a fixed order; hidden ones left out and counted."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path


@dataclass(frozen=True)
class Entry:
    """One file."""

    name: str
    """Without folders."""
    path: str
    """Absolute."""
    size_bytes: int
    """Bytes on disk."""
    exists: bool = True
    """False for a link to a file that is not there."""


@dataclass(frozen=True)
class Folder:
    """One folder of the tree."""

    parts: tuple[str, ...]
    """Its folders below the top."""
    entries: tuple[Entry, ...]
    """Its files, sorted by name."""
    problem: str = ""
    """Why it could not be listed."""


def walk(
    top: Path,
    ignored: Counter[str],
    skip: Collection[Path] = (),
    exclude: Sequence[str] = (),
) -> Iterator[Folder]:
    """Go through a tree, folders by name; each real folder once, even if several links lead to it.

    Links to folders are followed last, so that a scan is named after its real folder.

    Args:
        top: Where to start.
        ignored: Counted up: why a file or folder was left out.
        skip: Folders to leave out, such as the one for results.
        exclude: Patterns of names, or of paths below the top, to leave out; case does not count.
    """
    excluded = re.compile("|".join(map(translate, exclude)) or r"(?!)", re.IGNORECASE)
    seen = {_identity(str(path)) for path in skip} - {_identity(str(top))}
    waiting: list[tuple[tuple[str, ...], str]] = [((), os.path.abspath(top))]
    links: list[tuple[tuple[str, ...], str]] = []
    while waiting or links:
        followed = not waiting
        parts, path = links.pop(0) if followed else waiting.pop()
        identity = _identity(path)
        if identity in seen:
            ignored["folder of results, or a link to a folder seen before"] += 1
            continue
        seen.add(identity)
        folder, inner, inner_links = _list(parts, path, ignored, excluded)
        yield folder
        waiting.extend(reversed(inner))
        links.extend(inner_links)


def _identity(path: str) -> str:
    return os.path.normcase(os.path.realpath(path))


def _list(
    parts: tuple[str, ...], path: str, ignored: Counter[str], excluded: re.Pattern[str]
) -> tuple[Folder, list[tuple[tuple[str, ...], str]], list[tuple[tuple[str, ...], str]]]:
    """Files of one folder, its folders, and its links to folders."""
    try:
        with os.scandir(path) as listing:
            found = sorted(listing, key=lambda entry: entry.name)
    except OSError as err:
        return Folder(parts, (), f"cannot be opened: {err.strerror or err}"), [], []
    entries: list[Entry] = []
    inner: list[tuple[tuple[str, ...], str]] = []
    links: list[tuple[tuple[str, ...], str]] = []
    for entry in found:
        reason = hidden(entry.name)
        if excluded.match(entry.name) or excluded.match("/".join((*parts, entry.name))):
            reason = "excluded by --exclude"
        if reason is not None:
            ignored[reason] += 1
            continue
        try:
            if entry.is_dir():
                target = links if entry.is_symlink() else inner
                target.append(((*parts, entry.name), entry.path))
            elif entry.is_file():
                entries.append(Entry(entry.name, entry.path, entry.stat().st_size))
            elif entry.is_symlink() and not os.path.exists(entry.path):
                entries.append(Entry(entry.name, entry.path, 0, exists=False))
            else:
                ignored["neither file nor folder"] += 1
        except OSError:  # a link to itself, a file without permission, or just deleted
            entries.append(Entry(entry.name, entry.path, 0, exists=False))
    return Folder(parts, tuple(entries)), inner, links


def hidden(name: str) -> str | None:
    """Why a file or folder of this name is left out; None if it is not."""
    if name.startswith("._"):
        return "macOS '._' file"
    known = {"__MACOSX": "macOS '__MACOSX' folder", ".DS_Store": "macOS '.DS_Store'"}
    return known.get(name, "hidden" if name.startswith(".") else None)
