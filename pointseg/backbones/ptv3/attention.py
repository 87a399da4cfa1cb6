"""Multi-head attention in windows along a curve, as the blocks of Point Transformer V3 have it."""

from __future__ import annotations

from torch import Tensor, nn

from pointseg.backbones.ptv3.block_spec import BlockSpec
from pointseg.backbones.ptv3.rotary_positions import RotaryPositions
from pointseg.backbones.ptv3.serialization import SerializedVoxels
from pointseg.ops.attention.relative_positions import RelativePositions
from pointseg.ops.attention.windowed_attention import attend, attend_explicitly
from pointseg.ops.hardware.linear import Linear


class Attention(nn.Module):
    """Multi-head attention in windows of voxels that follow each other along a curve.

    Which curve depends on the block's number within its stage.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        number: int,
        spec: BlockSpec,
        rope: RotaryPositions | None = None,
    ) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(
                f"Attention: {channels} channels must be a multiple of the heads, got {heads}"
            )
        self.heads = heads
        self.window = window
        self.number = number
        self.spec = spec
        self.qkv = Linear(channels, 3 * channels, bias=spec.qkv_bias)
        self.proj = Linear(channels, channels)
        self.proj_drop = nn.Dropout(spec.proj_drop)
        self.rpe = RelativePositions(window, heads) if spec.enable_rpe else None
        self.rope = rope

    def forward(self, feat: Tensor, voxels: SerializedVoxels) -> Tensor:
        """(M, C) -> (M, C)."""
        spec, size = self.spec, self.window
        if not spec.enable_flash:
            size = min(size, *(count for count in voxels.counts if count))
        windows = voxels.windows(self.number, size)
        qkv = self.qkv(feat)  # (M, 3 C)
        if self.rope is not None:
            qkv = self.rope(qkv, self.heads, voxels)
        drop = spec.attn_drop if self.training else 0.0
        if spec.enable_rpe or spec.upcast_attention or spec.upcast_softmax:
            out = attend_explicitly(
                qkv,
                windows,
                heads=self.heads,
                scale=spec.qk_scale,
                dropout=drop,
                bias=self.rpe,
                grid_coord=voxels.grid_coord,
                upcast_attention=spec.upcast_attention,
                upcast_softmax=spec.upcast_softmax,
            )
        else:
            out = attend(qkv, windows, heads=self.heads, scale=spec.qk_scale, dropout=drop)
        projected: Tensor = self.proj_drop(self.proj(out))
        return projected
