"""The occupied voxels of a batch at one resolution, and which of them are neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from pointseg.ops.kernel_map import KernelMap, Pairs
from pointseg.ops.threads import for_each

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
        self.coord = coord
        self.batch = batch
        self._maps: dict[int, KernelMap] = {}
        self._coarser: dict[int, tuple[Grid, KernelMap, Tensor]] = {}
        cells = torch.cat([batch[:, None], coord], 1)
        lowest = cells.min().item() if len(cells) else 0
        if lowest < 0:
            raise ValueError(f"Grid: 'coord' and 'batch' must be >= 0, got {lowest}")
        self._extent = [int(n) + 1 for n in cells.amax(0)] if len(cells) else [1, 1, 1, 1]
        keys, self._order = torch.sort(self._keys(coord, batch, 0))
        if bool((keys[1:] == keys[:-1]).any()):
            raise ValueError(
                f"Grid: every voxel must occur once, {int((keys[1:] == keys[:-1]).sum())} rows repeat "
                "another one; sample one point per voxel first"
            )
        self._ordered = bool((self._order[1:] > self._order[:-1]).all())

    def __len__(self) -> int:
        return len(self.coord)

    def sorted(self) -> tuple[Grid, Tensor]:
        """The same voxels in the order of batch, x, y, z, where neighbours are near in memory too.

        Returns:
            The sorted grid; (N,) int64 the row here of each of its rows.
        """
        order = self._order
        if self._ordered:
            return self, order
        return Grid(self.coord.index_select(0, order), self.batch.index_select(0, order)), order

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
            self._maps[size] = KernelMap(
                self._neighbours(size), sources=len(self), targets=len(self), symmetric=True
            )
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

    def parent(self, stride: int = 2) -> Tensor:
        """(N,) int64 row of the coarser grid that each voxel is in."""
        self.coarser(stride)
        return self._coarser[stride][2]

    def _keys(self, coord: Tensor, batch: Tensor, margin: int) -> Tensor:
        """One number per voxel, ascending in batch, x, y, z.

        Each axis has ``margin`` empty cells after the last: one step beyond either end lands there
        and not in the next row, slice or cloud.
        """
        _, x, y, z = (n + margin for n in self._extent)
        if self._extent[0] * x * y * z > _MAX_KEY:
            raise ValueError(
                f"Grid: {self._extent[0]} clouds of {x} x {y} x {z} cells do not fit into 62 bits; "
                "use a larger voxel, or crop"
            )
        return ((batch * x + coord[:, 0]) * y + coord[:, 1]) * z + coord[:, 2]

    def _neighbours(self, size: int) -> list[Pairs]:
        reach, order = size // 2, self._order
        coord, batch = self.coord, self.batch
        if not self._ordered:
            coord, batch = coord.index_select(0, order), batch.index_select(0, order)
        keys = self._keys(coord, batch, reach)
        _, _, y, z = (n + reach for n in self._extent)
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
        columns = [(a, b) for a in range(size) for b in range(size) if (a, b) >= (reach, reach)]
        if keys.device.type == "cpu":
            for_each(search, columns)
        else:
            for column in columns:
                search(column)
        return [pairs[offset] for offset in range(size**3)]

    def _coarsen(self, stride: int) -> tuple[Grid, KernelMap, Tensor]:
        cells = torch.div(self.coord, stride, rounding_mode="floor")
        _, parent = torch.unique(self._keys(cells, self.batch, 0), return_inverse=True)
        count = int(parent.max()) + 1 if len(parent) else 0
        coord, batch = self.coord.new_empty(count, 3), self.batch.new_empty(count)
        coord[parent], batch[parent] = cells, self.batch  # all children of a cell write the same
        inside = self.coord - cells * stride
        offset = (inside[:, 0] * stride + inside[:, 1]) * stride + inside[:, 2]
        pairs = []
        for number in range(stride**3):
            rows = (offset == number).nonzero()[:, 0]
            pairs.append((rows.int(), parent[rows].int()))
        return Grid(coord, batch), KernelMap(pairs, sources=len(self), targets=count), parent
