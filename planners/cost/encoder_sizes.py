"""Sizes of the 2D encoders as data, so that planning need not build any; tests compare them with timm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.suggestion import suggestion


@dataclass(frozen=True, kw_only=True)
class EncoderSize:
    """Sizes of a DINOv3 or DINOv2 vision transformer."""

    width: int
    """Channels of a token."""
    depth: int
    """Transformer blocks."""
    heads: int
    """Attention heads."""
    hidden: int
    """Width of the MLP's hidden layer; in a gated MLP that of each branch."""
    gated: bool = False
    """Whether the MLP is SwiGLU instead of one hidden layer with GELU."""
    patch: int = 16
    """Side of a token, pixels."""
    prefix: int = 5
    """Tokens before the patches: class token and registers, which DINOv2 has with "reg4" in its name only."""
    rotary: bool = True
    """Whether positions are rotary (DINOv3); else a learned table (DINOv2)."""
    positions: int = 0
    """Entries of that table: one per patch, and without registers one for the class token."""
    qkv_bias: int = 2
    """Biases of the query, key and value projections: DINOv3 has none for keys, the 7B model none."""
    packed: bool = False
    """Whether both branches of a gated MLP are one layer (DINOv2 giant)."""
    align: int = 1
    """The hidden width is rounded up to a multiple of this."""

    @property
    def block_linears(self) -> list[tuple[int, int]]:
        """(inputs, outputs) of a block's linear layers."""
        e, h = self.width, self.hidden
        first = [(e, 2 * h)] if self.packed else [(e, h)] * (2 if self.gated else 1)
        return [(e, 3 * e), (e, e), *first, (h, e)]

    @property
    def block_parameters(self) -> int:
        """Weights and biases of one block."""
        linears = sum(i * o + o for i, o in self.block_linears)
        qkv = (self.qkv_bias - 3) * self.width  # counted above with three biases
        norms, scales = 4 * self.width, 2 * self.width
        return linears + qkv + norms + scales


def _v3(width: int, depth: int, heads: int, hidden: int, **more: Any) -> EncoderSize:
    return EncoderSize(width=width, depth=depth, heads=heads, hidden=hidden, **more)


def _v2(width: int, depth: int, heads: int, hidden: int, **more: Any) -> EncoderSize:
    """DINOv2 without registers."""
    table = dict(patch=14, prefix=1, rotary=False, positions=1 + 37 * 37, qkv_bias=3)
    return EncoderSize(width=width, depth=depth, heads=heads, hidden=hidden, **(table | more))


def _v2_reg4(width: int, depth: int, heads: int, hidden: int, **more: Any) -> EncoderSize:
    """DINOv2 with four registers; timm adds the class token's position to the token itself."""
    return _v2(width, depth, heads, hidden, prefix=5, positions=37 * 37, **more)


ENCODERS: Mapping[str, EncoderSize] = {
    "vit_small_patch16_dinov3": _v3(384, 12, 6, 1536),
    "vit_small_plus_patch16_dinov3": _v3(384, 12, 6, 1536, gated=True, align=8),
    "vit_base_patch16_dinov3": _v3(768, 12, 12, 3072),
    "vit_large_patch16_dinov3": _v3(1024, 24, 16, 4096),
    "vit_huge_plus_patch16_dinov3": _v3(1280, 32, 20, 5120, gated=True, align=8),
    "vit_7b_patch16_dinov3": _v3(4096, 40, 32, 8192, gated=True, qkv_bias=0, align=64),
    "vit_small_patch14_dinov2": _v2(384, 12, 6, 1536),
    "vit_base_patch14_dinov2": _v2(768, 12, 12, 3072),
    "vit_large_patch14_dinov2": _v2(1024, 24, 16, 4096),
    "vit_giant_patch14_dinov2": _v2(1536, 40, 24, 4096, gated=True, packed=True),
    "vit_small_patch14_reg4_dinov2": _v2_reg4(384, 12, 6, 1536),
    "vit_base_patch14_reg4_dinov2": _v2_reg4(768, 12, 12, 3072),
    "vit_large_patch14_reg4_dinov2": _v2_reg4(1024, 24, 16, 4096),
    "vit_giant_patch14_reg4_dinov2": _v2_reg4(1536, 40, 24, 4096, gated=True, packed=True),
}
"""The same names as `dinomed3d.lifting.MODELS` (Siméoni 2025, arXiv:2508.10104; Oquab 2023, arXiv:2304.07193;
registers: Darcet 2023, arXiv:2309.16588)."""


COUNTED = {"embed_dim", "depth", "num_heads", "mlp_ratio", "init_values", "drop_path_rate"}
"""timm's overrides that are known here; the last two change no size."""


def encoder_size(name: str, overrides: Mapping[str, Any]) -> EncoderSize:
    """The sizes of an encoder with overrides.

    Args:
        name: one of ENCODERS.
        overrides: timm's arguments, of COUNTED.

    Raises:
        UserError: an unknown name or override, or sizes that make no transformer.
    """
    if name not in ENCODERS:
        raise UserError(
            f"planner: DINOMED3D_ENCODER must be one of {', '.join(ENCODERS)}, got {name!r}"
            f"{suggestion([name], ENCODERS)}"
        )
    size = ENCODERS[name]
    variable = "planner: DINOMED3D_ENCODER_OVERRIDES"
    unknown = overrides.keys() - COUNTED
    if unknown:
        raise UserError(
            f"{variable} must have only {', '.join(sorted(COUNTED))}, whose cost is known, got "
            f"{', '.join(sorted(unknown))}; leave it out, or name an encoder that has it"
        )
    for key in ("embed_dim", "depth", "num_heads"):
        value = overrides.get(key, 1)
        if type(value) is not int or value < 1:
            raise UserError(f"{variable}: {key!r} must be a positive whole number, got {value!r}")
    ratio = overrides.get("mlp_ratio", 1)
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < math.inf:
        raise UserError(f"{variable}: 'mlp_ratio' must be a positive number, got {ratio!r}")
    width = overrides.get("embed_dim", size.width)
    heads = overrides.get("num_heads", size.heads)
    step = 4 if size.rotary else 1  # sine and cosine of two axes
    if width % (step * heads):
        raise UserError(
            f"{variable}: {name} needs an 'embed_dim' that is a multiple of {step} for each of its 'num_heads', got "
            f"{width} for {heads}"
        )
    branches = 2 if size.packed else 1  # timm's ratio of a packed MLP is for both branches together
    hidden = branches * size.hidden * width // size.width
    if "mlp_ratio" in overrides:
        hidden = int(width * ratio)
    if hidden < branches or hidden % branches:
        raise UserError(
            f"{variable}: {name} needs an even hidden width of its MLP, got {hidden}"
            if size.packed
            else f"{variable}: 'mlp_ratio' must leave at least one of {width} channels, got {ratio:g}"
        )
    hidden //= branches
    return replace(
        size,
        width=width,
        depth=overrides.get("depth", size.depth),
        heads=heads,
        hidden=-(-hidden // size.align) * size.align,
    )
