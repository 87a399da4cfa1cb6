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

from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 128
"""Rows of a tile."""
GROUP = 2**16
"""Rows that are ordered together."""
_BITS = 42
"""Offsets in one number to sort by; the bits above them hold the group."""


@dataclass(frozen=True)
class MaskedTiles:
    """T targets of K offsets in W / TILE tiles; W is T rounded up to whole tiles."""

    order: Tensor
    """(W,) int32 target row of each place; 0 in the places after the last."""
    sources: Tensor
    """(K, W) int32 source row of each place through each offset; -1 where none."""
    needed: Tensor
    """(tiles, K) int32 offsets that a tile needs, ascending, then the others."""
    counts: Tensor
    """(tiles,) int32 how many a tile needs."""
    needing: Tensor
    """(K, tiles) int32 tiles that need an offset, ascending, then the others."""
    tile_counts: Tensor
    """(K,) int32 how many need it."""
    mirrored: bool = False
    """Whether offsets are to be counted from the end: the transpose of a symmetric map."""


def masked_tiles(neighbours: Tensor) -> MaskedTiles:
    """Order the rows and cut the tiles, without reading a number on the host.

    Args:
        neighbours: (T, K) int32 source row of each target through each offset; -1 where none.
    """
    targets, size = neighbours.shape
    found = neighbours >= 0
    order = _by_rarest(found)
    width = -(-targets // TILE) * TILE
    sources = neighbours.new_full((size, width), -1)
    sources[:, :targets] = neighbours.index_select(0, order).T
    places = torch.zeros(width, dtype=torch.int32, device=order.device)
    places[:targets] = order
    needs = (sources >= 0).view(size, -1, TILE).any(2)
    needed, counts = _first(needs.T)
    needing, tile_counts = _first(needs)
    return MaskedTiles(places, sources, needed, counts, needing, tile_counts)


def _by_rarest(found: Tensor) -> Tensor:
    """(T, K) bool -> (T,) int64 rows, those with rare neighbours, who mostly have most, first.

    The longest work then starts first and the shortest fills the end.
    """
    targets, size = found.shape
    rank = torch.argsort(torch.argsort(found.sum(0), descending=True, stable=True), stable=True)
    group = torch.arange(targets, device=found.device) // GROUP
    order = None
    for low in range(0, size, _BITS):
        bit = (1 << (rank - low).clamp(0, _BITS)).masked_fill(
            (rank < low) | (rank >= low + _BITS), 0
        )
        key = (found * bit).sum(1)
        if low + _BITS >= size:
            key -= group << _BITS
        if order is not None:
            key = key.index_select(0, order)
        ranked = torch.argsort(key, descending=True, stable=True)
        order = ranked if order is None else order.index_select(0, ranked)
    assert order is not None
    return order


def _first(chosen: Tensor) -> tuple[Tensor, Tensor]:
    """(A, B) bool -> (A, B) int32 columns, the chosen ones of each row first; (A,) int32 how many."""
    columns = torch.argsort(chosen.to(torch.uint8), dim=1, descending=True, stable=True)
    return columns.int().contiguous(), chosen.sum(1, dtype=torch.int32)
