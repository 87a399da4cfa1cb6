"""Which rows a sparse convolution reads and writes through each offset of its kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field, replace

from torch import Tensor

from pointseg.ops.convolution.cpu_tiles import Pairs, Tile, cut_tiles, pairs_of
from pointseg.ops.convolution.masked_tiles import MaskedTiles


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
            tiles = (
                self._mirrored()
                if self.symmetric and self._turned
                else cut_tiles(self.pairs(), self.targets)
            )
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
                pairs = pairs_of(kept.tiles[at] or (), self.size)
                turned = turned != bool(at)
        return [(target, source) for source, target in pairs] if turned else pairs

    def _mirrored(self) -> tuple[Tile, ...]:
        """Tiles of the adjoint of a symmetric map: the same, the offsets counted from the end."""
        last = self.size - 1
        return tuple(
            replace(t, sections=tuple(replace(s, offset=last - s.offset) for s in t.sections))
            for t in self.transposed.tiles
        )


def _pairs_in(neighbours: Tensor | None) -> list[Pairs]:
    assert neighbours is not None
    found = []
    for column in neighbours.unbind(1):
        target = (column >= 0).nonzero()[:, 0]
        found.append((column.index_select(0, target), target.int()))
    return found
