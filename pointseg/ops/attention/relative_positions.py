"""Attention with a learned bias for each distance between points, by flex_attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.ops.attention.windows import Windows


class RelativePositions(nn.Module):
    """A learned number per head for each distance along x, along y and along z; their sum is a bias.

    Source: Point Transformer V3, arXiv:2312.10035; the table is Pointcept's, ``rpe_table``.
    """

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        # A window of a solid block of points is as wide as the root of their number.
        self.reach = int((4 * window) ** (1 / 3) * 2)
        self.rpe_table = nn.Parameter(torch.empty(3 * (2 * self.reach + 1), heads))
        nn.init.trunc_normal_(self.rpe_table, std=0.02)

    def forward(self, grid_coord: Tensor) -> Tensor:
        """(G, K, 3) int64 voxels -> (G, heads, K, K) bias of query i and key j.

        Distances beyond ``reach`` voxels count as ``reach``.
        """
        distance = grid_coord[:, :, None] - grid_coord[:, None]
        row = distance.clamp_(-self.reach, self.reach).add_(self.reach)
        tables = self.rpe_table.view(3, 2 * self.reach + 1, -1)
        bias = sum(F.embedding(row[..., axis], tables[axis]) for axis in (1, 2))
        return (F.embedding(row[..., 0], tables[0]) + bias).permute(0, 3, 1, 2)


def attend_relatively(
    qkv: Tensor,
    windows: Windows,
    *,
    heads: int,
    scale: float,
    bias: RelativePositions,
    places: Sequence[Tensor],
) -> Tensor:
    """Attention with relative positions whose scores are never held, by torch's ``flex_attention``.

    It is compiled when it is first used, and serves windows of all sizes.

    Args:
        qkv: (N, 3 C) queries, keys and values of each row side by side, each by head.
        windows: which rows attend to each other.
        heads: number of heads.
        scale: of the scores.
        bias: added to the scores.
        places: (G, K, 3) int64 voxels of each kind of windows, as ``windows.split`` gives them.

    Returns:
        (N, C).
    """
    by_head = windows.gather(qkv).view(len(windows.rows), 3, heads, -1)
    parts = []
    for part, place in zip(windows.split(by_head), places, strict=True):
        query, key, value = part.permute(2, 0, 3, 1, 4).unbind(0)  # (G, heads, K, C / heads)
        table = bias.rpe_table.view(3, 2 * bias.reach + 1, heads)
        out = compiled(bias.reach, scale)(query, key, value, table, place.int())
        parts.append(out.transpose(1, 2).flatten(0, 1).flatten(1))
    return windows.collect(torch.cat(parts) if len(parts) != 1 else parts[0])


@cache
def compiled(reach: int, scale: float) -> Callable[..., Tensor]:
    """``flex_with_positions`` as a kernel; another for each reach and scale, which are constants in it."""
    return torch.compile(flex_with_positions(reach, scale))


def flex_with_positions(reach: int, scale: float) -> Callable[..., Tensor]:
    """Attention with the bias of ``RelativePositions``; not compiled it holds all scores, like that.

    Args:
        reach: the largest distance that has a bias of its own; larger ones count as this one.
        scale: of the scores.

    Returns:
        A function of queries, keys and values, (G, heads, K, D) each, of the (3, 2 reach + 1, heads) bias for each
        distance along each axis, and of (G, K, 3) integer voxels; it returns (G, heads, K, D).

    Source: Dong 2024, arXiv:2412.05496.
    """
    from torch.nn.attention.flex_attention import flex_attention  # torch 2.5 on

    def attend(query: Tensor, key: Tensor, value: Tensor, table: Tensor, places: Tensor) -> Tensor:
        def add(score: Tensor, group: Tensor, head: Tensor, at: Tensor, other: Tensor) -> Tensor:
            # indexed as they come: the kernel can read whole tensors, no views of them
            def row(axis: int) -> Tensor:
                distance = places[group, at, axis] - places[group, other, axis]
                return distance.clamp(-reach, reach) + reach

            return score + table[0, row(0), head] + table[1, row(1), head] + table[2, row(2), head]

        found: Any = flex_attention(query, key, value, score_mod=add, scale=scale)
        out: Tensor = found
        return out

    return attend
