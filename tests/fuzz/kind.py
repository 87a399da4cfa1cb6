"""What a fuzz test knows of one kind of input: how a sound one is written, and what it may become."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.damage import Damaged, Lie, bytes_damaged

Result = Mapping[str, np.ndarray]
"""What was read, as arrays by name."""


class Refused(Exception):
    """One sentence of the program about the input, with the name of its file."""


class Finding(Exception):
    """What must not happen."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of input."""

    name: str
    """Of the kind."""
    file: str
    """The file that is damaged, below the folder of the input."""
    write: Callable[[Path], None]
    """Writes a sound input into a folder."""
    read: Callable[[Path, bool], Result]
    """Does with the input of a folder what the commands do, with a flag for everything to the end.

    Raises:
        Refused: it was refused.
        Finding: something else came of it than a right result.
    """
    lie: Lie
    """Makes a header lie, in the words of its format."""
    every: int = 1
    """Of so many seeds one is tried: more for kinds that take long."""
    has_checksum: bool = False
    """Whether all that is read is covered by a checksum: damaged bytes cannot change the result."""
    counted: bool = True
    """Whether the file says how long it is: nothing may be read of a file that is cut."""
    data_at: Callable[[bytes], int] | None = None
    """Where rows of plain numbers begin: each damaged byte there costs one of them at most."""
    data: str = ""
    """Name of the result that they become."""


def check(kind: Kind, sound: Result, found: Result, content: bytes, damage: Damaged) -> None:
    """Compare what was read with what the sound file says.

    Raises:
        Finding: it must not differ so.
    """
    for name, values in found.items():
        if values.dtype.kind == "O":
            raise Finding(f"{name} holds objects")
    if damage.is_lie:
        return
    if kind.has_checksum:
        _same(sound, found, "bytes that a checksum covers were changed")
    elif damage.is_cut and kind.counted:
        _same(sound, found, "its end is missing")
    elif kind.data_at is not None and damage.at:
        if min(damage.at) < kind.data_at(content):
            return
        one, two = sound[kind.data], found[kind.data]
        if one.shape != two.shape:
            raise Finding(f"{kind.data} has shape {two.shape}, not {one.shape}")
        differ = int((~np.isclose(one, two, rtol=1e-5, atol=1e-4, equal_nan=True)).sum())
        if differ > len(damage.at):
            raise Finding(f"{differ} values of {kind.data} differ, {len(damage.at)} bytes do")


def _same(sound: Result, found: Result, why: str) -> None:
    if sound.keys() != found.keys():
        raise Finding(f"{why}: {sorted(found)} was read, not {sorted(sound)}")
    for name in sound:
        one, two = sound[name], found[name]
        if one.shape != two.shape or not np.array_equal(one, two, equal_nan=one.dtype.kind == "f"):
            raise Finding(f"{why}: {name} differs from that of the sound file")


def damage_of(kind: Kind, rng: Any, content: bytes) -> Damaged:
    """Accidents and lies, as often."""
    return bytes_damaged(rng, content) if rng.random() < 0.5 else kind.lie(rng, content)
