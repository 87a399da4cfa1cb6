"""Neck: the taps of the encoder become one feature volume for each level that tokens enter."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dinomed3d.networks.cnn_spec import Triple
from dinomed3d.networks.resample import resample


class Neck(nn.Module):
    """A projection of all taps for one level, and its resampling to the level's grid.

    Every level has a projection of its own, because levels need other things of the taps. Resampling does not
    shift slices (the cubic kernels of DINO-Med3D's released code do).
    """

    def __init__(
        self, channels: int, taps: int, width: int, *, token: Triple, level_cell: Triple
    ) -> None:
        """Build it.

        Args:
            channels: channels of each tap.
            taps: number of taps.
            width: channels of the result.
            token: size (D, H, W) of a token, voxels.
            level_cell: size (D, H, W) of a cell of the level, voxels.
        """
        super().__init__()
        self.token, self.level_cell = token, level_cell
        self.project = nn.Sequential(
            nn.Conv3d(channels * taps, width, 1, bias=False),
            nn.InstanceNorm3d(width, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )

    def forward(self, taps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Taps (B, E, d, h, w) -> (B, width, *size), the level's (D', H', W')."""
        x = self.project(torch.cat(list(taps), dim=1))
        return resample(x, cell=self.token, size=size, level_cell=self.level_cell)
