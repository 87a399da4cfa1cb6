"""LZF, the compression inside PCD files: literal runs and copies of what came before.

A stream is a row of tokens. A first byte below 32 announces that many literal bytes plus one.
Otherwise its upper three bits hold the length of a copy less two (7: one more byte adds to it), its
lower five and the following byte the distance less one: 3 to 264 bytes from at most 8192 bytes back.

Source: M. Lehmann, LibLZF, https://software.schmorp.de/pkg/liblzf.html (the format).
"""

from __future__ import annotations

import numpy as np

MAX_LITERAL = 32
MAX_COPY = 264
MAX_DISTANCE = 8192
MAX_RATIO = 88
"""A copy of 264 bytes takes 3: streams cannot grow more."""
BLOCK = 1 << 20  # bytes whose repetitions are sought at once


def decompress(data: bytes, size: int) -> bytes:
    """Undo the compression.

    Args:
        data: the stream.
        size: bytes it must become.

    Raises:
        ValueError: it is damaged, or becomes more or fewer bytes.
    """
    out = bytearray()
    at, end = 0, len(data)
    try:
        while at < end:
            first = data[at]
            if first < MAX_LITERAL:
                after = at + first + 2
                out += data[at + 1 : after]
                at = after
                continue
            length = (first >> 5) + 2
            if length == 9:
                at += 1
                length += data[at]
            distance = ((first & 31) << 8) + data[at + 1] + 1
            at += 2
            start = len(out) - distance
            if start < 0 or start + distance + length > size:
                raise ValueError("a copy from before the beginning, or beyond the end")
            if length <= distance:
                out += out[start : start + length]
            else:  # what is copied is still being written: a pattern repeats
                out += (out[start:] * (length // distance + 1))[:length]
    except IndexError as error:
        raise ValueError("the stream ends within a token") from error
    if at > end or len(out) != size:
        raise ValueError(f"{len(out)} bytes came out, {size} were to come")
    return bytes(out)


def compress(data: bytes) -> bytes:
    """A stream that :func:`decompress` turns into ``data``; at most 1/32 longer than it."""
    out = bytearray()
    values = np.frombuffer(data, np.uint8)
    literal = at = 0  # where the literals not yet written begin; how far we are
    for start in range(0, len(data), BLOCK):
        end = min(start + BLOCK, len(data))
        lengths, distances, following = _copies(values, start, end)
        while at < end:
            place = following[at - start]
            if place < 0:
                break
            length, distance = lengths[place], distances[place] - 1
            place += start
            _put_literals(out, data[literal:place])
            if length < 9:
                out.append((length - 2) << 5 | distance >> 8)
            else:
                out += bytes(((7 << 5) | distance >> 8, length - 9))
            out.append(distance & 255)
            literal = at = place + length
        at = max(at, end)
    _put_literals(out, data[literal:])
    return bytes(out)


def _put_literals(out: bytearray, data: bytes) -> None:
    for start in range(0, len(data), MAX_LITERAL):
        part = data[start : start + MAX_LITERAL]
        out.append(len(part) - 1)
        out += part


def _copies(values: np.ndarray, start: int, end: int) -> tuple[list[int], list[int], list[int]]:
    """What can be copied at each place of a block: length, distance, and the next such place or -1.

    Places whose three bytes occurred before, at the same distance one after the other, make a copy.
    """
    begin = max(0, start - MAX_DISTANCE)
    part = values[begin:end].astype(np.uint32)
    if len(part) < 3:
        return [], [], [-1] * (end - start)
    triples = part[:-2] | part[1:-1] << 8 | part[2:] << 16
    order = np.argsort(triples, kind="stable")
    distance = np.zeros(len(part), np.int64)
    step = np.diff(order)
    step[triples[order[1:]] != triples[order[:-1]]] = 0
    distance[order[1:]] = np.where(step <= MAX_DISTANCE, step, 0)
    distance = distance[start - begin :]
    # A run of equal distances ends where the next one differs; its places copy up to there.
    ends = np.flatnonzero(np.append(distance[1:] != distance[:-1], True))
    run = ends[np.searchsorted(ends, np.arange(len(distance)))] - np.arange(len(distance)) + 1
    lengths = np.minimum(run + 2, MAX_COPY)
    places = np.where(distance > 0, np.arange(len(distance)), len(distance))
    following = np.minimum.accumulate(places[::-1])[::-1]
    following = np.where(following == len(distance), -1, following)
    return lengths.tolist(), distance.tolist(), following.tolist()
