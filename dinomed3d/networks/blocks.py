"""Convolution blocks of neck, detail stream and decoder; none of them strides depth."""

from __future__ import annotations

from torch import Tensor, nn


def conv_norm_act(
    channels_in: int, channels_out: int, *, depth_kernel: int, stride: int = 1
) -> nn.Sequential:
    """Convolution k x 3 x 3, instance norm, leaky ReLU; `stride` is in plane only.

    (B, channels_in, D, H, W) -> (B, channels_out, D, H / stride, W / stride).
    """
    return nn.Sequential(
        nn.Conv3d(
            channels_in,
            channels_out,
            (depth_kernel, 3, 3),
            stride=(1, stride, stride),
            padding=(depth_kernel // 2, 1, 1),
            bias=False,  # the norm would subtract it again
        ),
        nn.InstanceNorm3d(channels_out, affine=True),
        nn.LeakyReLU(0.01, inplace=True),
    )


class UpInPlane(nn.Module):
    """Transposed convolution 1 x f x f with stride f: enlarges in plane, slice by slice."""

    def __init__(self, channels_in: int, channels_out: int, *, factor: int = 2) -> None:
        super().__init__()
        size = (1, factor, factor)
        self.up = nn.ConvTranspose3d(channels_in, channels_out, size, stride=size)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels_in, D, H, W) -> (B, channels_out, D, f * H, f * W)."""
        return self.up(x)
