"""Serialisation in Point Transformer V3: the voxels of one resolution in the order of several curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pointseg.cloud import Cloud
from pointseg.ops.attention.space_filling_curves import MAX_DEPTH, encode
from pointseg.ops.attention.windows import Windows
from pointseg.ops.convolution.grid import Grid
from pointseg.ops.grouping.pooling import pool_cells, pool_grid
from pointseg.ops.grouping.segments import Segments
from pointseg.ops.hardware.pieces import is_cpu


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
    codes: Tensor
    """(O, M) int64 code of each voxel along each curve; O is 0 where no curves are followed."""
    orders: Tensor
    """(O, M) int64 voxels sorted along each curve; cloud after cloud."""
    sequence: tuple[int, ...]
    """The sequence in which blocks follow the curves: block i follows number ``sequence[i]``."""
    counts: tuple[int, ...]
    """Voxels of each cloud."""
    grid: Grid
    """Neighbours, for convolutions."""
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
        grid = Grid(cloud.grid_coord, cloud.batch)
        depth, codes = _encode(grid, orders)
        return cls(
            coord=cloud.coord,
            grid_coord=grid.coord,
            batch=grid.batch,
            offset=cloud.offset,
            depth=depth,
            codes=codes,
            orders=_sorted_along(codes),
            sequence=tuple(sequence),
            counts=tuple(cloud.counts.tolist()),
            grid=grid,
        )

    def __len__(self) -> int:
        return len(self.coord)

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
        first = self.sequence[0]
        cells = pool_cells(self.codes, self.orders, self.offset, halvings=halvings, first=first)
        clouds, *sides = self.grid.extent
        extent = (clouds, *((side - 1 >> halvings) + 1 for side in sides))
        grid = Grid.known(self.grid_coord[cells.heads] >> halvings, self.batch[cells.heads], extent)
        coarser = SerializedVoxels(
            coord=cells.segments.reduce(self.coord, "mean"),
            grid_coord=grid.coord,
            batch=grid.batch,
            offset=cells.offset,
            depth=self.depth - halvings,
            codes=cells.codes,
            orders=cells.orders,
            sequence=tuple(sequence),
            counts=cells.counts,
            grid=grid,
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
        cells = pool_grid(self.grid_coord, self.batch, self.offset, stride)
        grid_coord = torch.div(self.grid_coord[cells.heads], stride, rounding_mode="trunc")
        clouds, *sides = self.grid.extent
        extent = (clouds, *((side - 1) // stride + 1 for side in sides))
        grid = Grid.known(grid_coord, self.batch[cells.heads], extent, ordered=True)
        depth, codes = _encode(grid, orders)
        coarser = SerializedVoxels(
            coord=cells.segments.reduce(self.coord, "mean"),
            grid_coord=grid_coord,
            batch=grid.batch,
            offset=cells.offset,
            depth=depth,
            codes=codes,
            orders=_sorted_along(codes),
            sequence=tuple(sequence),
            counts=cells.counts,
            grid=grid,
        )
        return coarser, cells.segments


def _sorted_along(codes: Tensor) -> Tensor:
    """(O, N) codes -> (O, N) rows sorted by each."""
    if is_cpu(codes):  # torch sorts single rows faster
        return torch.stack([torch.argsort(code) for code in codes]) if len(codes) else codes
    return torch.argsort(codes)


def _encode(grid: Grid, orders: Sequence[str]) -> tuple[int, Tensor]:
    """The depth that holds all coordinates, and (O, N) codes along the curves.

    The depth is that of the largest coordinate plus one, as in Pointcept since 1.6.0: 63 takes 7 bits.

    Raises:
        ValueError: coordinates that the curves cannot hold.
    """
    if not orders:
        return 0, grid.batch.new_empty(0, len(grid))
    largest = max(grid.extent[1:]) - 1
    depth = (largest + 1).bit_length()
    if depth > MAX_DEPTH:
        raise ValueError(
            f"SerializedVoxels: 'grid_coord' must be below {2**MAX_DEPTH - 1}, got {largest}: use a "
            "larger voxel, or crop"
        )
    return depth, encode(grid.coord, grid.batch, depth, orders, extent=grid.extent)
