"""Decoder: from the coarsest level to full resolution, with deep supervision as in nnU-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dinomed3d.networks.blocks import UpInPlane, conv_norm_act


class Decoder(nn.Module):
    """One step per level: enlarge in plane, concatenate the level's skip, one convolution."""

    def __init__(
        self,
        skips: Sequence[int],
        widths: Sequence[int],
        *,
        depth_kernels: Sequence[int],
        classes: int,
        heads: int,
        deep_supervision: bool,
    ) -> None:
        """Build it.

        Args:
            skips: channels of each level's skip, finest first; 0 for none.
            widths: channels of the decoder at each level, finest first; the coarsest level has no
                step of its own, the decoder begins with its skip.
            depth_kernels: kernel size across slices per level.
            classes: channels of the logits.
            heads: finest levels with a segmentation head (`NetworkSpec.deep_supervision_heads`).
            deep_supervision: whether `forward` returns the logits of all heads (a list) or of the
                finest (a tensor).
        """
        super().__init__()
        self.deep_supervision = deep_supervision
        coarse = [*widths[1:-1], skips[-1]]  # channels of the next coarser level
        self.ups = nn.ModuleList(UpInPlane(c, w) for c, w in zip(coarse, widths[:-1], strict=True))
        self.steps = nn.ModuleList(
            conv_norm_act(w + s, w, depth_kernel=k)
            for w, s, k in zip(
                widths[:-1], skips[:-1], depth_kernels[: len(skips) - 1], strict=True
            )
        )
        # nnU-Net's -pretrained_weights skips layers of this name, which depend on the classes
        self.seg_layers = nn.ModuleList(nn.Conv3d(w, classes, 1) for w in widths[:-1][:heads])

    def forward(self, skips: Sequence[Tensor | None]) -> Tensor | list[Tensor]:
        """Decode.

        Args:
            skips: per level, finest first, (B, skip, D, H / 2^l, W / 2^l), or None but
                for the coarsest.

        Returns:
            Logits (B, classes, D, H, W), or with deep supervision a list of them, finest first.
        """
        x = skips[-1]
        assert x is not None, "decoding begins with the coarsest level"
        logits: dict[int, Tensor] = {}
        for level in reversed(range(len(self.steps))):
            skip = skips[level]
            up = self.ups[level](x)
            x = self.steps[level](up if skip is None else torch.cat([up, skip], dim=1))
            if level == 0 or (self.deep_supervision and level < len(self.seg_layers)):
                logits[level] = self.seg_layers[level](x)
        return [logits[i] for i in sorted(logits)] if self.deep_supervision else logits[0]
