"""Pairs of rows of a kernel map, cut into tiles of target rows that a CPU's threads compute one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pointseg.ops.hardware.threads import count_threads, for_each

PAIRS_PER_TILE = 65536
"""Products of rows and weights that are held at a time on a CPU, by all threads together: few enough for
its last-level cache."""
PAIRS_PER_SECTION = 1024
"""But each kernel offset should find so many pairs in a tile, on average: fewer are slow to multiply."""
FEW_PAIRS = 4096
"""Per thread; fewer are not cut for the threads' sake."""
ROW_STEP = 64
"""Long sections are padded to multiples of this, and very long ones to coarser multiples, so that few
shapes of matrix product occur: each has to be prepared once."""

Pairs = tuple[Tensor, Tensor]
"""Source rows and target rows, both (P,) int32, of one kernel offset; no target twice."""


@dataclass(frozen=True)
class Section:
    """The pairs of one kernel offset within a tile."""

    offset: int
    """The number of the kernel's offset."""
    row: int
    """The first of the tile's products that belongs to this section."""
    rows: int
    """The number of products, padding included."""
    source: Tensor
    """(P,) int32 source row of each pair."""
    target: Tensor
    """(P,) int32 target row of each pair, ascending."""


@dataclass(frozen=True)
class Tile:
    """Consecutive target rows and all that is summed into them, for output-stationary convolution.

    The pairs are sorted by kernel offset, so that one matrix product serves a section; the sum over
    sections then reads the products row by row of the target:

        pairs      | offset 0: 7 9 | offset 1: 7 8 9 | ...      (targets)
        products   | 0 1 . .       | 4 5 6 .         |          (. is padding)
        bag            7: 0 4      8: 5      9: 1 6
    """

    first: int
    """The first target row."""
    last: int
    """One past the last target row."""
    sections: tuple[Section, ...]
    """The pairs of each kernel offset that has any here."""
    bag: Tensor
    """(P,) int32 products of all sections, sorted by target row."""
    bag_starts: Tensor
    """(last - first + 1,) int32 where each target's products begin in ``bag``."""

    @property
    def rows(self) -> int:
        """Rows of products, padding included."""
        return self.sections[-1].row + self.sections[-1].rows if self.sections else 0


def cut_tiles(pairs: Sequence[Pairs], targets: int) -> tuple[Tile, ...]:
    """Tiles of about PAIRS_PER_TILE pairs each; of few pairs, one for each thread.

    Args:
        pairs: of each kernel offset.
        targets: number of rows that are written.
    """
    pairs = [_ascending(*rows, targets) for rows in pairs]
    count = sum(len(source) for source, _ in pairs)
    threads = count_threads()
    most = max(PAIRS_PER_TILE // threads, PAIRS_PER_SECTION * len(pairs))
    tiles = -(-count // most)
    if count > FEW_PAIRS * threads:
        tiles = -(-tiles // threads) * threads
    step = max(1, padded(-(-targets // max(1, tiles))))
    bounds = [*range(0, targets, step), targets]
    edges = torch.tensor(bounds, dtype=torch.int32)
    cuts = [torch.searchsorted(target, edges).tolist() for _, target in pairs]
    # All tiles share a few large allocations: many small ones would fragment memory.
    kept = torch.empty(3, count, dtype=torch.int32)
    starts = torch.empty(targets + len(bounds) - 1, dtype=torch.int32)
    ends = torch.tensor(cuts).sum(0).tolist()

    def cut(number: int) -> Tile:
        parts = [
            (source[at[number] : at[number + 1]], target[at[number] : at[number + 1]])
            for (source, target), at in zip(pairs, cuts, strict=True)
        ]
        first, last = bounds[number], bounds[number + 1]
        storage = kept[:, ends[number] : ends[number + 1]]
        return _tile(parts, first, last, storage, starts[first + number : last + number + 1])

    return tuple(for_each(cut, range(len(bounds) - 1)))


def pairs_of(tiles: Sequence[Tile], size: int) -> list[Pairs]:
    """The pairs of each of ``size`` kernel offsets, tile after tile."""
    found: list[list[Section]] = [[] for _ in range(size)]
    for tile in tiles:
        for section in tile.sections:
            found[section.offset].append(section)
    none = torch.empty(0, dtype=torch.int32)
    return [
        (torch.cat([none, *(s.source for s in of)]), torch.cat([none, *(s.target for s in of)]))
        for of in found
    ]


def _ascending(source: Tensor, target: Tensor, targets: int) -> Pairs:
    """The same pairs sorted by target, in linear time: no target occurs twice."""
    if len(target) < 2 or bool((target[1:] > target[:-1]).all()):
        return source, target
    column = source.new_full((targets,), -1)
    column.scatter_(0, target.long(), source)
    found = (column >= 0).nonzero()[:, 0]
    return column.index_select(0, found), found.to(target.dtype)


def padded(count: int) -> int:
    """Rows of a section: a sixteenth more at most, and as they are where there are few."""
    if count < 4 * ROW_STEP:
        return count
    step = max(ROW_STEP, 2 ** (count.bit_length() - 5))
    return -(-count // step) * step


def _tile(parts: Sequence[Pairs], first: int, last: int, storage: Tensor, starts: Tensor) -> Tile:
    """Fill ``storage`` (3, P) and ``starts`` (last - first + 1,), which the tile then holds."""
    source, target, bag = storage
    torch.cat([source for source, _ in parts], out=source)
    torch.cat([target for _, target in parts], out=target)
    sections: list[Section] = []
    places: list[Tensor] = []  # of each pair among the products
    start = row = 0
    for offset, (_, here) in enumerate(parts):
        if not len(here):
            continue
        stop, rows = start + len(here), padded(len(here))
        sections.append(Section(offset, row, rows, source[start:stop], target[start:stop]))
        places.append(torch.arange(row, row + len(here), dtype=torch.int32))
        start, row = stop, row + rows
    # fewer bytes are sorted faster; of one row, the sections stay in order
    local = (target - first).to(torch.int16 if last - first < 2**15 else torch.int32)
    local, order = torch.sort(local, stable=True)
    if places:
        torch.index_select(torch.cat(places), 0, order, out=bag)
    bounds = torch.arange(last - first + 1, dtype=local.dtype)
    torch.searchsorted(local, bounds, out_int32=True, out=starts)
    return Tile(first, last, tuple(sections), bag, starts)
