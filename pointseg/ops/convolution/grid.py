"""The occupied voxels of a batch at one resolution, and which of them are neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from torch import Tensor

from pointseg.ops.convolution.cpu_tiles import Pairs
from pointseg.ops.convolution.kernel_map import KernelMap
from pointseg.ops.grouping.pooling import pool_grid
from pointseg.ops.grouping.segments import Segments
from pointseg.ops.hardware.pieces import VALUES, is_cpu
from pointseg.ops.hardware.threads import for_each

_MAX_KEY = 2**62


class Grid:
    """Occupied voxels of a batch of clouds at one resolution; immutable.

    Kernel maps are built when first used, in O(N log N), and kept, so that all layers of one
    resolution share them.
    """

    def __init__(self, coord: Tensor, batch: Tensor) -> None:
        """Check the voxels and sort them.

        Args:
            coord: (N, 3) int64 voxel coordinates, >= 0.
            batch: (N,) int64 number of the cloud that each voxel is of, >= 0.

        Raises:
            ValueError: other shapes or types, negative numbers, or a voxel that occurs twice.
        """
        if coord.dim() != 2 or coord.shape[1] != 3 or coord.dtype != torch.int64:
            raise ValueError(
                f"Grid: 'coord' must be (N, 3) int64, got {tuple(coord.shape)} {coord.dtype}"
            )
        if batch.shape != coord.shape[:1] or batch.dtype != torch.int64:
            raise ValueError(
                f"Grid: 'batch' must be ({len(coord)},) int64, got {tuple(batch.shape)} {batch.dtype}"
            )
        if not len(coord):
            self._set(coord, batch, (1, 1, 1, 1), torch.zeros_like(batch), ordered=True)
            return
        low, high = torch.cat([batch[:, None], coord], 1).aminmax(dim=0)
        keys, order = torch.sort(_number(coord, batch, (high[1:] + 1).unbind()))
        repeats = (keys[1:] == keys[:-1]).sum()
        turned = (order[1:] < order[:-1]).sum()
        # all that the host must know is read at once: to read is to wait for the device
        lowest, repeated, steps_back, *highest = torch.cat(
            [torch.stack([low.amin(), repeats, turned]), high]
        ).tolist()
        if lowest < 0:
            raise ValueError(f"Grid: 'coord' and 'batch' must be >= 0, got {lowest}")
        self._set(coord, batch, tuple(n + 1 for n in highest), order, ordered=not steps_back)
        if repeated:
            raise ValueError(
                f"Grid: every voxel must occur once, {repeated} rows repeat another one; sample one point "
                "per voxel first"
            )

    @classmethod
    def known(
        cls, coord: Tensor, batch: Tensor, extent: tuple[int, ...], *, ordered: bool = False
    ) -> Grid:
        """A grid of voxels that are known to be right, which the host need not wait for.

        Args:
            coord: as ``__init__``.
            batch: as ``__init__``.
            extent: see the property; may be larger than the voxels need.
            ordered: whether they are in the order of batch, x, y, z; where that is not known, False.
        """
        grid = cls.__new__(cls)
        if ordered:
            order = torch.arange(len(batch), device=batch.device)
        else:
            order = torch.argsort(_number(coord, batch, extent[1:]))
        grid._set(coord, batch, extent, order, ordered=ordered)
        return grid

    def _set(
        self, coord: Tensor, batch: Tensor, extent: tuple[int, ...], order: Tensor, *, ordered: bool
    ) -> None:
        self.coord = coord
        self.batch = batch
        self.extent = extent
        """Clouds, and cells along x, y and z."""
        self._order, self._ordered = order, ordered
        self._maps: dict[int, KernelMap] = {}
        self._coarser: dict[int, tuple[Grid, KernelMap, Segments]] = {}
        self._sorted: Grid | None = None
        self._sizes(0)

    def __len__(self) -> int:
        return len(self.coord)

    def apart(self) -> Grid:
        """The same voxels, without the maps that are kept: for one that only a single layer reads."""
        grid = copy(self)
        grid._maps, grid._coarser, grid._sorted = {}, {}, None
        return grid

    def sorted(self) -> tuple[Grid, Tensor]:
        """The same voxels in the order of batch, x, y, z, where neighbours are near in memory too.

        Returns:
            The sorted grid; (N,) int64 the row here of each of its rows.
        """
        order = self._order
        if self._ordered:
            return self, order
        if self._sorted is None:
            coord, batch = self.coord.index_select(0, order), self.batch.index_select(0, order)
            self._sorted = Grid.known(coord, batch, self.extent, ordered=True)
        return self._sorted, order

    def kernel_map(self, size: int) -> KernelMap:
        """Pairs of voxels for a submanifold convolution: outputs at the inputs' voxels.

        Args:
            size: of the kernel along each axis, odd.

        Returns:
            The map with size^3 offsets, z fastest; offset (a, b, c) reads the voxel at
            (a, b, c) - size // 2 from the output's, as torch's ``conv3d`` does.

        Raises:
            ValueError: an even or negative size.

        Source: Graham 2018, arXiv:1711.10275, section 3.
        """
        if size < 1 or size % 2 == 0:
            raise ValueError(f"Grid.kernel_map: 'size' must be odd and positive, got {size}")
        if size not in self._maps:
            if is_cpu(self.coord):
                pairs, count = self._pairs(size), len(self)
                found = KernelMap(pairs, sources=count, targets=count, symmetric=True)
            else:
                found = KernelMap.of_neighbours(self._neighbours(size), sources=len(self))
            self._maps[size] = found
        return self._maps[size]

    def coarser(self, stride: int = 2) -> tuple[Grid, KernelMap]:
        """The grid of cells of stride^3 voxels, and the map from these voxels to those cells.

        Args:
            stride: voxels per cell along each axis; the kernel of the convolution is as large.

        Returns:
            The coarser grid, sorted by batch, x, y, z; the map with stride^3 offsets, z fastest, whose
            sources are this grid's rows.

        Raises:
            ValueError: a stride below 1.
        """
        if stride < 1:
            raise ValueError(f"Grid.coarser: 'stride' must be >= 1, got {stride}")
        if stride not in self._coarser:
            self._coarser[stride] = self._coarsen(stride)
        return self._coarser[stride][:2]

    def cells(self, stride: int = 2) -> Segments:
        """The row of the coarser grid that each voxel is in."""
        self.coarser(stride)
        return self._coarser[stride][2]

    def _sizes(self, margin: int) -> tuple[int, int, int]:
        """Cells along x, y and z with ``margin`` empty ones after the last, so that all have a number.

        One step beyond either end lands there and not in the next row, slice or cloud.
        """
        clouds, x, y, z = self.extent
        x, y, z = x + margin, y + margin, z + margin
        if clouds * x * y * z > _MAX_KEY:
            raise ValueError(
                f"Grid: {clouds} clouds of {x} x {y} x {z} cells do not fit into 62 bits; use a larger "
                "voxel, or crop"
            )
        return x, y, z

    def _neighbours(self, size: int) -> Tensor:
        """(N, size^3) int32 row of each neighbour, -1 where there is none: all found by one search."""
        reach = size // 2
        x, y, z = self._sizes(reach)
        own = _number(self.coord, self.batch, (x, y, z))
        if (self.extent[0] + 1) * x * y * z < 2**31:  # half the bytes, also one step beyond
            own = own.int()
        order = None if self._ordered else self._order.int()
        keys = own if order is None else own.index_select(0, order)
        step = torch.arange(-reach, reach + 1, dtype=own.dtype, device=own.device)
        shift = ((step[:, None, None] * y + step[:, None]) * z + step).flatten()
        found = []
        for part in own.split(max(1, VALUES // len(shift))):
            wanted = part[:, None] + shift
            at = torch.searchsorted(keys, wanted, out_int32=True).clamp_(max=len(keys) - 1)
            here = keys.index_select(0, at.flatten()).view_as(wanted) == wanted
            row = at if order is None else order.index_select(0, at.flatten()).view_as(at)
            found.append(torch.where(here, row, -1))
        return torch.cat(found) if len(found) != 1 else found[0]

    def _pairs(self, size: int) -> list[Pairs]:
        """The same as pairs, those of columns along z in a thread each."""
        reach, order = size // 2, self._order
        coord, batch = self.coord, self.batch
        if not self._ordered:
            coord, batch = coord.index_select(0, order), batch.index_select(0, order)
        _, y, z = sizes = self._sizes(reach)
        keys = _number(coord, batch, sizes)
        padded = torch.cat([keys, keys.new_full((1,), _MAX_KEY)])
        rows = order.int()
        pairs: dict[int, Pairs] = {size**3 // 2: (rows, rows)}

        def search(column: tuple[int, int]) -> None:
            # Along z the neighbours of one voxel follow each other in the sorted keys: one search
            # finds where they begin, comparing with the next key finds each.
            a, b = column
            shift = (a - reach) * y * z + (b - reach) * z
            if shift:
                at = torch.searchsorted(keys, keys + (shift - reach))
            else:
                at = torch.arange(1, len(keys) + 1, device=keys.device)
            for c in range(-reach if shift else 1, reach + 1):
                found = padded.index_select(0, at) == keys + (shift + c)
                target = found.nonzero()[:, 0]
                source = at.index_select(0, target)
                at += found
                if not self._ordered:
                    target, source = order.index_select(0, target), order.index_select(0, source)
                target, source = target.int(), source.int()
                offset = (a * size + b) * size + c + reach
                pairs[offset] = (source, target)
                pairs[size**3 - 1 - offset] = (target, source)

        # The other half of the columns has the pairs of the opposite offsets, swapped.
        for_each(
            search, [(a, b) for a in range(size) for b in range(size) if (a, b) >= (reach, reach)]
        )
        return [pairs[offset] for offset in range(size**3)]

    def _coarsen(self, stride: int) -> tuple[Grid, KernelMap, Segments]:
        whole = torch.full((1,), len(self), device=self.batch.device)
        pooled = pool_grid(self.coord, self.batch, whole, stride)
        parent, count = pooled.segments.index, len(pooled.heads)
        cells = torch.div(self.coord, stride, rounding_mode="floor")
        inside = self.coord - cells * stride
        offset = (inside[:, 0] * stride + inside[:, 1]) * stride + inside[:, 2]
        if is_cpu(self.coord):
            pairs = []
            for number in range(stride**3):
                rows = (offset == number).nonzero()[:, 0]
                pairs.append((rows.int(), parent[rows].int()))
            kernel_map = KernelMap(pairs, sources=len(self), targets=count)
        else:
            kernel_map = _strided_map(parent, offset, count, stride**3)
        coord = cells.index_select(0, pooled.heads)
        batch = self.batch.index_select(0, pooled.heads)
        clouds, *sides = self.extent
        extent = (clouds, *((side - 1) // stride + 1 for side in sides))
        grid = Grid.known(coord, batch, extent, ordered=True)
        return grid, kernel_map, pooled.segments


def _number(coord: Tensor, batch: Tensor, sizes: Sequence[int | Tensor]) -> Tensor:
    """(N,) one number per voxel of grids with so many cells along x, y and z, ascending in batch, x, y, z."""
    x, y, z = sizes
    return ((batch * x + coord[:, 0]) * y + coord[:, 1]) * z + coord[:, 2]


def _strided_map(parent: Tensor, offset: Tensor, cells: int, size: int) -> KernelMap:
    """Of (N,) voxels in cells, at one of ``size`` places in each."""
    row = torch.arange(len(parent), dtype=torch.int32, device=parent.device)
    down = row.new_full((cells, size), -1)
    down.view(-1)[parent * size + offset] = row
    up = row.new_full((len(parent), size), -1)
    up.scatter_(1, offset[:, None], parent[:, None].int())
    return KernelMap.of_neighbours(down, sources=len(parent), adjoint=up)
