"""Neck: the taps of the encoder become a pyramid of feature volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from dinomed3d.networks.blocks import UpInPlane, conv_norm_act


class Neck(nn.Module):
    """Projects the concatenated taps, then resamples them to the in-plane stride of each level.

    Finer levels by a transposed convolution, coarser ones by strided convolutions; kernels do not
    reach across slices, so slice z stays slice z (the cubic kernels of DINO-Med3D's released
    code shift them).
    """

    def __init__(
        self, channels: int, taps: int, width: int, *, token: int, strides: Sequence[int]
    ) -> None:
        """Build it.

        Args:
            channels: channels of each tap.
            taps: number of taps.
            width: channels of each level.
            token: side of a token, voxels.
            strides: in-plane strides of the levels, voxels.
        """
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv3d(channels * taps, width, 1, bias=False),
            nn.InstanceNorm3d(width, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        )
        self.resample = nn.ModuleDict()
        for stride in strides:
            if stride < token:
                layer: nn.Module = UpInPlane(width, width, factor=token // stride)
            elif stride == token:
                layer = nn.Identity()
            else:
                layer = nn.Sequential(
                    *(
                        conv_norm_act(width, width, depth_kernel=1, stride=2)
                        for _ in range((stride // token).bit_length() - 1)
                    )
                )
            self.resample[str(stride)] = layer

    def forward(self, taps: Sequence[Tensor]) -> Mapping[int, Tensor]:
        """Taps (B, E, D, h, w) -> {stride: (B, width, D, H / stride, W / stride)}."""
        x = self.project(torch.cat(list(taps), dim=1))
        return {int(stride): layer(x) for stride, layer in self.resample.items()}
