"""Rotary positions of points in space: queries and keys are turned by angles that grow with x, y and z.

Of the C / heads = 6 Q channels of a head, the first third is turned by x, the next by y, the last by z. Within
a third, channel j < Q and channel j + Q are the two coordinates that are turned, by position * base^(-j / Q).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from pointseg.backbones.ptv3.serialization import SerializedVoxels

Positions = Literal["coord", "grid_coord"]
"""What is turned by: positions in the units of ``Cloud.coord``, or voxels of the stage."""


@dataclass(frozen=True, kw_only=True)
class PositionJitter:
    """Random changes of the positions in training, drawn anew in each attention, the same for all points."""

    shift: float | None = None
    """The largest shift along each axis, in the units of the positions; None: no shift."""
    jitter: float | None = None
    """The largest factor along each axis, its inverse the smallest; None, or at most 1: none."""
    rescale: float | None = None
    """The largest factor of all axes together, likewise."""

    def __call__(self, positions: Tensor) -> Tensor:
        """(M, 3) -> (M, 3).

        Source: Utonia, released recipes; the order in which the numbers are drawn is theirs.
        """
        if self.shift is not None:
            positions = positions + _uniform(positions, 3, self.shift)
        for largest, count in ((self.jitter, 3), (self.rescale, 1)):
            if largest is not None and largest > 1:
                positions = positions * _uniform(positions, count, math.log(largest)).exp()
        return positions


def _uniform(like: Tensor, count: int, bound: float) -> Tensor:
    return like.new_empty(count).uniform_(-bound, bound)


class RotaryPositions(nn.Module):
    """Turns queries and keys, not values: their products then depend on differences of positions alone.

    Source: Su 2021, arXiv:2104.09864; in space as in Utonia and LitePT, by their released code.
    """

    def __init__(
        self,
        channels: int,
        base: float,
        *,
        positions: Positions,
        jitter: PositionJitter | None = None,
        saved: bool = False,
    ) -> None:
        """Set the frequencies.

        Args:
            channels: of a head, a multiple of 6.
            base: the frequencies fall from 1 towards 1 / base.
            positions: what is turned by.
            jitter: of the positions in training; None: none.
            saved: whether the frequencies are in the state dict, ``inv_freq``, as in Utonia's files; what is
                loaded there is used.

        Raises:
            ValueError: channels that are no multiple of 6, a base that is not above 0.
        """
        super().__init__()
        if channels % 6:
            raise ValueError(
                f"RotaryPositions: channels per head must be a multiple of 6, got {channels}"
            )
        if not base > 0:
            raise ValueError(f"RotaryPositions: 'base' must be above 0, got {base}")
        self.positions, self.jitter = positions, jitter
        steps = torch.arange(channels // 6, dtype=torch.float32) / (channels // 6)
        self.register_buffer("inv_freq", float(base) ** -steps, persistent=saved)
        self.inv_freq: Tensor

    def forward(self, qkv: Tensor, heads: int, voxels: SerializedVoxels) -> Tensor:
        """Turn the queries and keys of all rows, by angles computed in float32.

        Args:
            qkv: (M, 3 C) queries, keys and values side by side, each by head.
            heads: of the attention.
            voxels: whose positions are read.

        Returns:
            (M, 3 C) in the type of ``qkv``.
        """
        at = voxels.coord if self.positions == "coord" else voxels.grid_coord
        at = at.float()
        if self.training and self.jitter is not None:
            at = self.jitter(at)
        angles = at[:, :, None] * self.inv_freq.float()  # (M, 3, Q)
        cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
        rows, channels = len(qkv), qkv.shape[1] // 3
        turned = qkv[:, : 2 * channels].view(rows, 2, heads, 3, 2, -1)
        u, v = turned.unbind(-2)  # (M, 2, heads, 3, Q) both
        turned = torch.stack([u * cos - v * sin, v * cos + u * sin], -2)
        turned = turned.reshape(rows, 2 * channels).to(qkv.dtype)
        return torch.cat([turned, qkv[:, 2 * channels :]], 1)
