"""The encoding of a cloud of text; bytes of another one are carried along as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_text(path: Path) -> Any:
    """A file opened for reading; the ends of its lines stay as they are."""
    encoding, errors = encoding_of(path)
    return open(path, encoding=encoding, errors=errors, newline="")


def encoding_of(path: Path, *, copy: bool = False) -> tuple[str, str]:
    """Encoding, and what to do with other bytes: UTF-16 where a mark says so, otherwise UTF-8.

    Bytes that are not UTF-8 (names in comments) are carried along as they are.
    """
    with open(path, "rb") as stream:
        if stream.read(2) in (b"\xff\xfe", b"\xfe\xff"):
            return "utf-16", "strict"
    return "utf-8" if copy else "utf-8-sig", "surrogateescape"
