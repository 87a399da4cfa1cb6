"""Damage to files, seeded: bytes as disks and transfers lose them, and headers that lie."""

from __future__ import annotations

import copy
import json
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

HEAD = 700
"""Bytes at the start that are damaged as often as all others together: headers are there."""
NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 127, 255, 256, 65535, 2**31 - 1, -(2**31), 2**32, 2**63 - 1, 10**20),
    *(-0.0, 0.5, 1e-9, 5e-324, 1e300, -1e300, float("nan"), float("inf"), float("-inf")),
)
WORDS = (
    "",
    "x",
    "nan",
    "-",
    "None",
    "True",
    "0x10",
    "1e999",
    "../..",
    "a" * 3000,
    "\x00",
    "\u00fc",
)
VALUES: tuple[Any, ...] = (
    *(None, True, False, *NUMBERS, *WORDS, [], {}, [[]], [None], [0], [-1, 2], ["x"], {"x": 1}),
    *([1, 2, 3, 4, 5], [1e9, 1e9, 1e9], [10**8] * 3, "os.system", "torch.nn.Linear", "torch"),
)
Fields = Sequence[tuple[int, str]]
"""Offsets of numbers in a binary header, and struct's codes of them."""


@dataclass(frozen=True)
class Damaged:
    """A file after one accident."""

    content: bytes
    """What it holds."""
    how: str
    """What was done, for messages."""
    at: tuple[int, ...] | None = None
    """Offsets of the bytes that were replaced; None: its length may differ or a header lies."""
    is_cut: bool = False
    """Whether its end is missing."""
    is_lie: bool = False
    """Whether it was written by somebody: checksums fit what it says."""


def bytes_damaged(rng: Random, content: bytes) -> Damaged:
    """Bits flipped, blocks lost, repeated, exchanged or added, or the end missing."""
    size = len(content)
    at = rng.randrange(min(HEAD, size)) if rng.random() < 0.5 else rng.randrange(size)
    length = min(size - at, 2 ** rng.randrange(10))
    block = content[at : at + length]
    kind = rng.choice(
        ("flip", "flip", "flip", "fill", "cut", "cut", "add", "lose", "repeat", "swap")
    )
    if kind == "flip":
        places = sorted({min(size - 1, at + rng.randrange(64)) for _ in range(rng.randrange(1, 5))})
        changed = bytearray(content)
        for place in places:
            changed[place] ^= 1 << rng.randrange(8)
        return Damaged(bytes(changed), f"bits of bytes {places} flipped", tuple(places))
    if kind == "fill":
        filled = bytes([rng.choice((0, 0xFF, rng.randrange(256)))]) * length
        changed_at = tuple(at + i for i in range(length) if block[i] != filled[i])
        whole = content[:at] + filled + content[at + length :]
        return Damaged(whole, f"{length} bytes at {at} filled", changed_at)
    if kind == "cut":
        end = rng.choice((at, size - min(size, 2 ** rng.randrange(8))))
        return Damaged(content[:end], f"cut to {end} of {size} bytes", is_cut=True)
    if kind == "add":
        more = rng.randbytes(length) if rng.random() < 0.5 else bytes(length)
        return Damaged(content[:at] + more + content[at:], f"{length} bytes added at {at}")
    if kind == "lose":
        return Damaged(content[:at] + content[at + length :], f"{length} bytes lost at {at}")
    if kind == "repeat":
        return Damaged(content[:at] + block + content[at:], f"{length} bytes repeated at {at}")
    other = rng.randrange(size)
    length = min(length, abs(other - at), size - max(at, other))
    low, high = sorted((at, other))
    whole = (
        *(content[:low], content[high : high + length], content[low + length : high]),
        *(content[low : low + length], content[high + length :]),
    )
    return Damaged(b"".join(whole), f"{length} bytes at {low} and {high} exchanged")


def fields_damaged(rng: Random, content: bytes, fields: Fields) -> Damaged:
    """One or two numbers of a binary header replaced by others."""
    changed, changes = bytearray(content), []
    for offset, code in rng.sample(list(fields), min(len(fields), rng.choice((1, 1, 2)))):
        value = packable(rng.choice(NUMBERS), code)
        struct.pack_into(code, changed, offset, value)
        changes.append(f"{value} at {offset}")
    return Damaged(bytes(changed), f"header says {', '.join(changes)}", is_lie=True)


def packable(value: float, code: str) -> float:
    """A number as a field can hold it: whole numbers wrap around."""
    if code[-1] in "fd":
        return value if code[-1] == "d" or abs(value) < 3e38 or value != value else 3e38
    whole = 0 if value != value else int(max(-(2.0**63), min(value, 2.0**63)))
    bits = 8 * struct.calcsize(code)
    whole %= 1 << bits
    return whole - (1 << bits) if code[-1].islower() and whole >> (bits - 1) else whole


def text_damaged(rng: Random, content: bytes, end: int | None = None) -> Damaged:
    """Numbers or words of a text replaced, lines lost, repeated, exchanged or added.

    Args:
        rng: decides.
        content: the file.
        end: where its text ends; None: it is text alone.
    """
    head, rest = content[:end], b"" if end is None else content[end:]
    kind = rng.choice(("number", "number", "number", "word", "word", "line"))
    found = list(re.finditer(rb"-?\d+[-+.\deE]*" if kind == "number" else rb"[^\s,;\"]+", head))
    if kind != "line" and found:
        # those of a header as often as all others
        early = [one for one in found if one.start() < HEAD]
        match = rng.choice(early if early and rng.random() < 0.6 else found)
        new = (
            rng.choice(NUMBERS)
            if kind == "number"
            else rng.choice((*WORDS, match[0].decode("latin-1") * 2))
        )
        text = str(new).encode("utf-8", "replace")
        head = head[: match.start()] + text + head[match.end() :]
        return Damaged(head + rest, f"{match[0][:40]!r} became {text[:40]!r}", is_lie=True)
    lines = head.splitlines(keepends=True)
    one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
    action = rng.choice(("lost", "repeated", "exchanged"))
    if action == "lost":
        del lines[one]
    elif action == "repeated":
        lines.insert(two, lines[one])
    else:
        lines[one], lines[two] = lines[two], lines[one]
    return Damaged(b"".join(lines) + rest, f"lines {one} and {two} {action}", is_lie=True)


def tree_damaged(rng: Random, content: Any, values: Sequence[Any] = VALUES) -> tuple[Any, str]:
    """A tree of dicts and lists in which one entry is missing or another one."""
    changed = copy.deepcopy(content)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in list(pairs):
            places.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(changed)
    node, key = rng.choice(places)
    kind = rng.choice(("other", "other", "other", "lost", "moved", "deep"))
    if kind == "lost":
        del node[key]
        return changed, f"{key!r} is missing"
    if kind == "moved":
        other, there = rng.choice(places)
        try:
            node[key], other[there] = copy.deepcopy(other[there]), copy.deepcopy(node[key])
        except (KeyError, IndexError):
            pass
        return changed, f"{key!r} and {there!r} exchanged"
    if kind == "deep":
        value: Any = 1
        for _ in range(rng.choice((3, 40))):
            value = [value]
        node[key] = value
        return changed, f"{key!r} is a deep list"
    old, node[key] = node[key], copy.deepcopy(rng.choice(values))
    return changed, f"{key!r} is {str(node[key])[:60]!r}, not {str(old)[:60]!r}"


def json_damaged(rng: Random, content: bytes) -> Damaged:
    """A JSON file in which an entry is missing or another one; sometimes nested without end."""
    if rng.random() < 0.02:
        return Damaged(b"[" * 100_000, "100,000 brackets", is_lie=True)
    changed, how = tree_damaged(rng, json.loads(content))
    return Damaged(json.dumps(changed).encode(), how, is_lie=True)


Lie = Callable[[Random, bytes], Damaged]
"""Makes a header lie in a way of its format."""
