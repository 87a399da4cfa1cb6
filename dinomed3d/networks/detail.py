"""Detail-recovery stream: a small 3D CNN on the raw volume, for the detail that patch tokens lose."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from dinomed3d.networks.blocks import conv_norm_act


class DetailStream(nn.Module):
    """Two convolutions per level, in-plane strides 1, 2, 4, ...; depth is kept."""

    def __init__(
        self, channels: int, widths: Sequence[int], *, depth_kernels: Sequence[int]
    ) -> None:
        """Build it.

        Args:
            channels: of the volume.
            widths: channels per level.
            depth_kernels: kernel size across slices per level.
        """
        super().__init__()
        before = [channels, *widths[:-1]]
        self.levels = nn.ModuleList(
            nn.Sequential(
                conv_norm_act(c_in, c_out, depth_kernel=k, stride=2 if level else 1),
                conv_norm_act(c_out, c_out, depth_kernel=k),
            )
            for level, (c_in, c_out, k) in enumerate(
                zip(before, widths, depth_kernels[: len(widths)], strict=True)
            )
        )

    def forward(self, volume: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) -> one (B, width, D, H / s, W / s) per level, s = 1, 2, 4, ..."""
        outputs = []
        x = volume
        for level in self.levels:
            x = level(x)
            outputs.append(x)
        return outputs
