"""Checksums of arrays: what they notice, and that they do not depend on how an array lies in memory."""

from __future__ import annotations

import numpy as np
import pytest

from dinomed3d.runtime.files.array_checksum import array_checksum

VALUES = np.random.default_rng(0).normal(size=(5000, 3)).astype(np.float32)


def with_bytes(change):
    raw = bytearray(VALUES.tobytes())
    change(raw)
    return np.frombuffer(bytes(raw), np.float32).reshape(VALUES.shape)


def flip(raw, at):
    raw[at] ^= 1


def exchange(raw):
    raw[:4096], raw[4096:8192] = raw[4096:8192], raw[:4096]


@pytest.mark.parametrize(
    "other",
    [
        with_bytes(lambda raw: flip(raw, 0)),
        with_bytes(lambda raw: flip(raw, 30000)),
        with_bytes(lambda raw: flip(raw, -1)),
        with_bytes(exchange),
        with_bytes(lambda raw: raw.__setitem__(slice(8192, 12288), bytes(4096))),
        VALUES[:-1],
        VALUES.reshape(-1),
        VALUES.view(np.int32),
    ],
    ids=["first", "middle", "end", "exchanged", "zeroed", "shorter", "flat", "type"],
)
def test_changes_are_noticed(other):
    assert array_checksum(other) != array_checksum(VALUES)


def test_the_same_values_have_the_same_checksum():
    known = array_checksum(np.arange(3, dtype=np.int16))
    assert known == array_checksum(np.arange(3, dtype=">i2")) == "273229ac3e44f4e4"
    assert array_checksum(np.asfortranarray(VALUES)) == array_checksum(VALUES)
    assert len(array_checksum(VALUES[:0])) == 16
