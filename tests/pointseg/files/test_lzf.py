"""LZF: the format by hand, round trips, damaged streams, speed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from pointseg.files.lzf import compress, decompress


def test_the_format_by_hand():
    # Three literal bytes; a copy of 3 (1 << 5) from 3 back (2); a long copy (7 << 5) of
    # 9 + 1 bytes from 1 back: the last byte again and again.
    stream = bytes([2]) + b"abc" + bytes([1 << 5, 2]) + bytes([7 << 5, 1, 0])
    assert decompress(stream, 16) == b"abcabc" + b"c" * 10


def test_a_far_copy_by_hand():
    # 32 literals at a time; then 4 bytes from 0x123 + 1 back: 2 << 5 | 0x01, 0x23.
    data = bytes(range(32)) * 10
    literals = b"".join(bytes([31]) + data[i : i + 32] for i in range(0, 320, 32))
    assert decompress(literals + bytes([2 << 5 | 1, 0x23]), 324) == data + data[320 - 0x124 :][:4]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a",
        b"ab",
        b"aaa",
        b"a" * 1000,
        bytes(range(256)) * 100,
        np.random.default_rng(0).integers(0, 256, 20_000, np.uint8).tobytes(),
        np.random.default_rng(0).integers(0, 3, 20_000, np.uint8).tobytes(),
        np.random.default_rng(0).integers(0, 5, 10_000).astype("<u4").tobytes(),
    ],
)
def test_round_trips(data):
    packed = compress(data)
    assert decompress(packed, len(data)) == data
    assert len(packed) <= len(data) * 33 / 32 + 1


def test_repetition_beyond_a_block_and_out_of_reach(monkeypatch):
    monkeypatch.setattr("pointseg.files.lzf.BLOCK", 1000)
    word = np.random.default_rng(0).integers(0, 256, 500, np.uint8).tobytes()
    data = word + bytes(700) + word + bytes(9000) + word + b"end"
    packed = compress(data)
    assert decompress(packed, len(data)) == data
    assert len(packed) < 1600  # the second word is a copy, the third too far away, zeros are free


def test_zeros_become_copies():
    assert len(compress(bytes(264 * 1000))) < 3200


@pytest.mark.parametrize(
    ("stream", "size", "message"),
    [
        (bytes([5]) + b"abc", 6, "bytes came out"),
        (bytes([2]) + b"abc" + bytes([1 << 5]), 6, "ends within a token"),
        (bytes([2]) + b"abc" + bytes([7 << 5]), 6, "ends within a token"),
        (bytes([2]) + b"abc" + bytes([1 << 5, 3]), 6, "from before the beginning"),
        (bytes([2]) + b"abc" + bytes([1 << 5, 2]), 5, "beyond the end"),
        (bytes([2]) + b"abc", 4, "3 bytes came out, 4 were to come"),
        (bytes([2]) + b"abc", 2, "3 bytes came out, 2 were to come"),
    ],
)
def test_damaged_streams_are_refused(stream, size, message):
    with pytest.raises(ValueError, match=message):
        decompress(stream, size)


def test_a_depth_image_takes_no_time_worth_mentioning():
    # As large as a depth camera's cloud, harder to compress than one.
    data = np.random.default_rng(0).integers(0, 40, 640 * 480 * 16, np.uint8).tobytes()
    start = time.perf_counter()
    assert decompress(compress(data), len(data)) == data
    assert time.perf_counter() - start < 20
