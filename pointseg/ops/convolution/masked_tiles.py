"""Target rows of a sparse convolution in tiles that leave out the offsets none of their rows needs.

Of the 27 neighbours of a voxel on a surface about ten exist, but other ones for other voxels: 128 rows in a
row need nearly all 27 between them. Rows that have the same neighbours are therefore put together.
Rows are ordered by what they have at the rarest offset, then at the next rarest, and so on. In a room whose
voxels have 10.6 of 27 neighbours, tiles then need 12.6 offsets instead of 22.5; in a LiDAR sweep whose voxels
have 3.0, 5.6 instead of 20.8. Order changes only within groups of rows, so that the rows of a tile stay
near in memory, and so does what they read.

Sources: the same idea is in spconv 2 (masks of implicit GEMM) and in Tang et al. 2023,
arXiv:2311.12862 (TorchSparse++), section 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

TILE = 128
"""Rows of a tile."""
GROUP = 2**16
"""Rows that are ordered together."""
BITS = 42
"""Offsets in one number to sort by; the bits above them hold the group."""


@dataclass(frozen=True)
class MaskedTiles:
    """T targets of K offsets in W / TILE tiles; W is T rounded up to whole tiles."""

    order: Tensor
    """(W,) int32 target row of each place; 0 in the places after the last."""
    sources: Tensor
    """(K, W) int32 source row of each place through each offset; -1 where none."""
    needs: Tensor
    """(K, tiles) int32 1 where a tile needs an offset, else 0."""
    needed: Tensor
    """(tiles, K) int32 offsets that a tile needs, ascending, then the others."""
    counts: Tensor
    """(tiles,) int32 how many a tile needs."""
    mirrored: bool = False
    """Whether offsets are to be counted from the end: the transpose of a symmetric map."""

    @cached_property
    def needing(self) -> Tensor:
        """(K, tiles) int32 tiles that need an offset, ascending, then the others."""
        return _ones_first(self.needs)

    @cached_property
    def tile_counts(self) -> Tensor:
        """(K,) int32 how many tiles need an offset."""
        return self.needs.sum(1, dtype=torch.int32)


def masked_tiles(neighbours: Tensor) -> MaskedTiles:
    """Order the rows and cut the tiles, without reading a number on the host.

    This is what ``triton_tiles`` does in fewer steps, and is compared with.

    Args:
        neighbours: (T, K) int32 source row of each target through each offset; -1 where none.
    """
    targets, size = neighbours.shape
    order = sorted_by(_keys(neighbours >= 0))
    width = -(-targets // TILE) * TILE
    sources = neighbours.new_full((size, width), -1)
    sources[:, :targets] = neighbours.index_select(0, order).T
    places = torch.zeros(width, dtype=torch.int32, device=order.device)
    places[:targets] = order
    needs = (sources >= 0).view(size, -1, TILE).any(2).int()
    return MaskedTiles(
        places, sources, needs, _ones_first(needs.T), needs.sum(0, dtype=torch.int32)
    )


def ranks(neighbours: Tensor) -> Tensor:
    """(K,) int64 bit of each offset in the numbers to sort by: the rarest highest."""
    counts = (neighbours >= 0).sum(0, dtype=torch.int32)
    return torch.argsort(torch.argsort(counts, descending=True, stable=True), stable=True)


def sorted_by(keys: Sequence[Tensor]) -> Tensor:
    """(T,) int64 rows, the greatest number first, by the last of some numbers before those in front.

    Rows with rare neighbours have most of the others, too: the longest work starts first.
    """
    order = torch.argsort(keys[0], descending=True, stable=True)
    for key in keys[1:]:
        ranked = torch.argsort(key.index_select(0, order), descending=True, stable=True)
        order = order.index_select(0, ranked)
    return order


def _keys(found: Tensor) -> list[Tensor]:
    """(T, K) bool -> (T,) int64 numbers of BITS offsets each; the last also has the group."""
    targets, size = found.shape
    rank = ranks(found.int() - 1)
    keys = []
    for low in range(0, size, BITS):
        bit = 1 << (rank - low).clamp(0, BITS)
        keys.append((found * bit.masked_fill((rank < low) | (rank >= low + BITS), 0)).sum(1))
    keys[-1] -= torch.arange(targets, device=found.device) // GROUP << BITS
    return keys


def _ones_first(flags: Tensor) -> Tensor:
    """(A, B) 0 or 1 -> (A, B) int32 columns, those with 1 first."""
    return torch.argsort(flags, dim=1, descending=True, stable=True).int().contiguous()
