"""Serialisation in Point Transformer V3: the voxels of one resolution in the order of several curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from pointseg.cloud import Cloud
from pointseg.ops.attention import Windows
from pointseg.ops.grid import Grid
from pointseg.ops.offsets import counts_of
from pointseg.ops.pooling import Segments, pool_cells, pool_grid
from pointseg.ops.space_filling_curves import MAX_DEPTH, encode


@dataclass(frozen=True)
class SerializedVoxels:
    """M voxels of a batch, sorted along several curves; windows and kernel maps are made once and kept.

    Source: Wu 2024, arXiv:2312.10035, section 4.1.
    """

    coord: Tensor
    """(M, 3) metres, the mean of the points that were pooled."""
    grid_coord: Tensor
    """(M, 3) int64 voxel coordinates at this resolution."""
    batch: Tensor
    """(M,) int64 number of the cloud that each voxel belongs to."""
    offset: Tensor
    """(B,) int64 cumulative counts of voxels."""
    depth: int
    """Halvings of the cube that are left at this resolution; 0 where no curves are followed."""
    codes: tuple[Tensor, ...]
    """Code of each voxel along each curve, (M,) int64; none where no curves are followed."""
    orders: tuple[Tensor, ...]
    """Voxels sorted along each curve, (M,) int64; cloud after cloud."""
    sequence: tuple[int, ...]
    """The sequence in which blocks follow the curves: block i follows number ``sequence[i]``."""
    _windows: dict[tuple[int | None, int], Windows] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, cloud: Cloud, orders: Sequence[str], sequence: Sequence[int]) -> SerializedVoxels:
        """The points of a batch, each in a voxel of its own.

        Args:
            cloud: N points.
            orders: names of curves, of ``space_filling_curves.ORDERS``; none where blocks follow none.
            sequence: in which blocks follow them.

        Raises:
            ValueError: no points, points of a cloud that are not in one run, or coordinates that
                the curves cannot hold.
        """
        if not len(cloud):
            raise ValueError("SerializedVoxels: 'cloud' must hold at least one point, got none")
        depth, codes = _encode(cloud.grid_coord, cloud.batch, orders)
        return cls(
            coord=cloud.coord,
            grid_coord=cloud.grid_coord,
            batch=cloud.batch,
            offset=cloud.offset,
            depth=depth,
            codes=codes,
            orders=tuple(torch.argsort(code) for code in codes),
            sequence=tuple(sequence),
        )

    def __len__(self) -> int:
        return len(self.coord)

    @cached_property
    def grid(self) -> Grid:
        """Neighbours, for convolutions."""
        return Grid(self.grid_coord, self.batch)

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Voxels of each cloud."""
        return tuple(counts_of(self.offset).tolist())

    def windows(self, block: int, size: int) -> Windows:
        """Windows of ``size`` voxels along the curve of a block; made when first used."""
        curve = self.sequence[block % len(self.sequence)]
        if (None, size) not in self._windows:
            self._windows[None, size] = Windows.of(self.counts, size, self.coord.device)
        if (curve, size) not in self._windows:
            self._windows[curve, size] = self._windows[None, size].along(self.orders[curve])
        return self._windows[curve, size]

    def pooled(self, stride: int, sequence: Sequence[int]) -> tuple[SerializedVoxels, Segments]:
        """Cells of ``stride`` voxels along each axis, numbered along the first curve of this resolution.

        Their codes are those of the voxels without the last bits, as in Point Transformer V3.

        Args:
            stride: a power of two.
            sequence: in which blocks follow the curves there.

        Returns:
            The coarser voxels, and the cell of each voxel here.
        """
        halvings = stride.bit_length() - 1
        if halvings > self.depth:  # nothing left to halve: each voxel is a cell
            halvings = 0
        cells = pool_cells(self.codes, self.orders, halvings=halvings, first=self.sequence[0])
        batch = self.batch[cells.heads]
        coarser = SerializedVoxels(
            coord=cells.segments.reduce(self.coord, "mean"),
            grid_coord=self.grid_coord[cells.heads] >> halvings,
            batch=batch,
            offset=torch.bincount(batch, minlength=len(self.offset)).cumsum(0),
            depth=self.depth - halvings,
            codes=cells.codes,
            orders=cells.orders,
            sequence=tuple(sequence),
        )
        return coarser, cells.segments

    def pooled_anew(
        self, stride: int, orders: Sequence[str], sequence: Sequence[int]
    ) -> tuple[SerializedVoxels, Segments]:
        """Cells of ``stride`` voxels along each axis, numbered by cloud, x, y, z, with codes of their own.

        Hilbert's curve through them may be turned against the curve of this resolution: it is, unless the
        depth falls by the halvings of the stride.

        Args:
            stride: voxels per cell along each axis, >= 1.
            orders: names of curves; none where blocks follow none.
            sequence: in which blocks follow the curves there.

        Returns:
            The coarser voxels, and the cell of each voxel here.

        Source: Sonata (Wu 2025, arXiv:2503.16429), released code.
        """
        segments, heads = pool_grid(self.grid_coord, self.batch, stride)
        batch = self.batch[heads]
        grid_coord = torch.div(self.grid_coord[heads], stride, rounding_mode="trunc")
        depth, codes = _encode(grid_coord, batch, orders)
        coarser = SerializedVoxels(
            coord=segments.reduce(self.coord, "mean"),
            grid_coord=grid_coord,
            batch=batch,
            offset=torch.bincount(batch, minlength=len(self.offset)).cumsum(0),
            depth=depth,
            codes=codes,
            orders=tuple(torch.argsort(code) for code in codes),
            sequence=tuple(sequence),
        )
        return coarser, segments


def _encode(
    grid_coord: Tensor, batch: Tensor, orders: Sequence[str]
) -> tuple[int, tuple[Tensor, ...]]:
    """The depth that holds all coordinates, and (N,) codes along each curve.

    The depth is that of the largest coordinate plus one, as in Pointcept since 1.6.0: 63 takes 7 bits.

    Raises:
        ValueError: coordinates that the curves cannot hold.
    """
    if not orders:
        return 0, ()
    depth = (int(grid_coord.max()) + 1).bit_length()
    if depth > MAX_DEPTH:
        raise ValueError(
            f"SerializedVoxels: 'grid_coord' must be below {2**MAX_DEPTH - 1}, got "
            f"{int(grid_coord.max())}: use a larger voxel, or crop"
        )
    return depth, encode(grid_coord, batch, depth, orders).unbind(0)
