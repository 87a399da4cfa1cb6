"""Kinds that do what must not be: the fuzz test has to notice each."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np

from tests.fuzz.damage import Damaged
from tests.fuzz.kind import Kind, Refused, Result

SOUND = bytes(range(200))
WRONG = ["crash", "differs", "error", "hang", "memory", "nameless", "shifted"]
"""Names of those that do it; the others are right."""


def differs(content: bytes) -> Result:
    """What was read anew although a checksum covers it."""
    return {"all": np.frombuffer(content, np.uint8)}


def shifted(content: bytes) -> Result:
    """One damaged byte, and everything is another."""
    return {"all": np.cumsum(np.frombuffer(content, np.uint8))}


def error(content: bytes) -> Result:
    """An error that nobody explained."""
    raise KeyError("recipe")


def nameless(content: bytes) -> Result:
    """A sentence that says not of which file."""
    raise Refused("it is damaged; copy it again")


def memory(content: bytes) -> Result:
    """More memory than an input may take."""
    return {"all": np.ones(2**29, np.float64)}


def hang(content: bytes) -> Result:
    """No end."""
    while True:
        pass


def crash(content: bytes) -> Result:
    """What a native library does with a wrong pointer."""
    ctypes.string_at(0)
    return {}


def refuses(content: bytes) -> Result:
    """One sentence."""
    raise Refused("file.bin: is damaged; copy it again")


def reads(content: bytes) -> Result:
    """The bytes, as they are."""
    return {"all": np.frombuffer(content, np.uint8)}


def flipped(rng: Random, content: bytes) -> Damaged:
    """One byte."""
    return Damaged(bytes([content[0] ^ 1]) + content[1:], "flipped", (0,))


def kinds(folder: Path) -> list[Kind]:
    """All of them; the sound input is read rightly."""

    def kind(read: Callable[[bytes], Result]) -> Kind:
        def of(folder: Path, whole: bool) -> Result:
            content = (folder / "file.bin").read_bytes()
            return reads(content) if content == SOUND and read is not shifted else read(content)

        return Kind(
            name=read.__name__,
            file="file.bin",
            write=lambda folder: (folder / "file.bin").write_bytes(SOUND) and None,
            read=of,
            lie=flipped,
            has_checksum=read in (differs, refuses),
            data_at=lambda content: 0,
            data="all",
        )

    chosen = [differs, shifted, error, nameless, hang, crash, refuses, reads]
    return [kind(one) for one in (*chosen, *([memory] if sys.platform.startswith("linux") else []))]
