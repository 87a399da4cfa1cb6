"""Which rows a sparse convolution reads and writes through each offset of its kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from pointseg.ops.masked_tiles import MaskedTiles
from pointseg.ops.threads import count_threads, for_each

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


@dataclass
class _Kept:
    """The data that a map and its transpose share; item 0 is the map's, item 1 the transpose's."""

    pairs: Sequence[Pairs] | None = None
    """Pairs of the map; None once there are tiles or neighbours, which hold them too."""
    tiles: list[tuple[Tile, ...] | None] = field(default_factory=lambda: [None, None])
    neighbours: list[Tensor | None] = field(default_factory=lambda: [None, None])
    tables: list[Tensor | None] = field(default_factory=lambda: [None, None])
    masked: list[MaskedTiles | None] = field(default_factory=lambda: [None, None])


class KernelMap:
    """Pairs of source and target rows for every offset of a kernel.

    On a CPU a map is made of pairs and read as tiles; on other devices it is made of the table of
    neighbours, and read as that or as the table that has a row for padding. Each form is made from
    the others when first used, and kept.
    """

    def __init__(
        self, pairs: Sequence[Pairs], *, sources: int, targets: int, symmetric: bool = False
    ) -> None:
        """Keep the pairs.

        Args:
            pairs: of each kernel offset.
            sources: number of rows that are read.
            targets: number of rows that are written.
            symmetric: whether the pairs of the last offset are those of the first, swapped, and so on.
        """
        self.sources = sources
        self.targets = targets
        self.size = len(pairs)
        self.symmetric = symmetric
        self._turned = False
        self._kept = _Kept(pairs)

    @classmethod
    def of_neighbours(
        cls, neighbours: Tensor, *, sources: int, adjoint: Tensor | None = None
    ) -> KernelMap:
        """A map from its table, without reading a number of it.

        Args:
            neighbours: see the property.
            sources: number of rows that are read.
            adjoint: the same of the transposed map; None: the map is symmetric, see ``__init__``.
        """
        made = cls((), sources=sources, targets=len(neighbours), symmetric=adjoint is None)
        made.size = neighbours.shape[1]
        made._kept = _Kept(neighbours=[neighbours, adjoint])
        return made

    @property
    def count(self) -> int:
        """Pairs of all offsets."""
        return sum(len(source) for source, _ in self.pairs())

    @property
    def transposed(self) -> KernelMap:
        """The map of the adjoint: targets become sources, offsets keep their numbers.

        Neither of the two holds the other, but both what they share: memory is free as soon as
        nobody holds either.
        """
        other = copy(self)
        other.sources, other.targets = self.targets, self.sources
        other._turned = not self._turned
        return other

    @property
    def tiles(self) -> tuple[Tile, ...]:
        """The pairs, cut so that each tile has about PAIRS_PER_TILE of them; of few, one for each thread."""
        tiles = self._kept.tiles[self._turned]
        if tiles is None:
            tiles = self._mirrored() if self.symmetric and self._turned else self._cut()
            self._kept.tiles[self._turned] = tiles
            self._kept.pairs = None
        return tiles

    @property
    def neighbours(self) -> Tensor:
        """(targets, K) int32 source row of each target through each offset, contiguous; -1 where none."""
        neighbours = self._kept.neighbours[self._turned]
        if neighbours is None:
            if self.symmetric and self._turned:
                neighbours = self.transposed.neighbours.flip(1)
            else:
                pairs = self.pairs()
                neighbours = pairs[0][0].new_full((self.targets, self.size), -1)
                for offset, (source, target) in enumerate(pairs):
                    neighbours[target.long(), offset] = source
            self._kept.neighbours[self._turned] = neighbours
        return neighbours

    @property
    def table(self) -> Tensor:
        """(targets, K) int32: as ``neighbours``, but ``sources`` where none, for rows with one of zeros."""
        table = self._kept.tables[self._turned]
        if table is None:
            neighbours = self.neighbours
            table = neighbours.masked_fill(neighbours < 0, self.sources)
            self._kept.tables[self._turned] = table
        return table

    def masked_tiles(self, cut: Callable[[Tensor], MaskedTiles]) -> MaskedTiles:
        """The same for kernels that leave out offsets; ``cut`` makes them of the neighbours when first used."""
        if self.symmetric and self._turned:
            return replace(self.transposed.masked_tiles(cut), mirrored=True)
        masked = self._kept.masked[self._turned]
        if masked is None:
            masked = self._kept.masked[self._turned] = cut(self.neighbours)
        return masked

    def pairs(self) -> Sequence[Pairs]:
        """Of each kernel offset, from wherever they are; once there are tiles, in their order."""
        kept, turned = self._kept, self._turned
        pairs = kept.pairs
        if pairs is None:
            if kept.tiles == [None, None]:
                pairs = _pairs_in(kept.neighbours[0])
            else:
                at = 0 if kept.tiles[0] is not None else 1
                pairs = _pairs_of(kept.tiles[at] or (), self.size)
                turned = turned != bool(at)
        return [(target, source) for source, target in pairs] if turned else pairs

    def _mirrored(self) -> tuple[Tile, ...]:
        """Tiles of the adjoint of a symmetric map: the same, the offsets counted from the end."""
        last = self.size - 1
        return tuple(
            replace(t, sections=tuple(replace(s, offset=last - s.offset) for s in t.sections))
            for t in self.transposed.tiles
        )

    def _cut(self) -> tuple[Tile, ...]:
        pairs = [_ascending(*rows, self.targets) for rows in self.pairs()]
        count = sum(len(source) for source, _ in pairs)
        threads = count_threads()
        most = max(PAIRS_PER_TILE // threads, PAIRS_PER_SECTION * self.size)
        tiles = -(-count // most)
        if count > FEW_PAIRS * threads:
            tiles = -(-tiles // threads) * threads
        step = max(1, padded(-(-self.targets // max(1, tiles))))
        bounds = [*range(0, self.targets, step), self.targets]
        edges = torch.tensor(bounds, dtype=torch.int32)
        cuts = [torch.searchsorted(target, edges).tolist() for _, target in pairs]
        # All tiles share a few large allocations: many small ones would fragment memory.
        kept = torch.empty(3, count, dtype=torch.int32)
        starts = torch.empty(self.targets + len(bounds) - 1, dtype=torch.int32)
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


def _pairs_in(neighbours: Tensor | None) -> list[Pairs]:
    assert neighbours is not None
    found = []
    for column in neighbours.unbind(1):
        target = (column >= 0).nonzero()[:, 0]
        found.append((column.index_select(0, target), target.int()))
    return found


def _pairs_of(tiles: Sequence[Tile], size: int) -> list[Pairs]:
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
