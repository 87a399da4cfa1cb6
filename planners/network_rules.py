"""Rules that size the network to the slices: tokens, levels, widths, learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dinomed3d.networks import NetworkSpec, depth_kernels
from planners.cost import stage_two
from planners.dataset_stats import DatasetStats
from planners.encoders import encoder_size

TARGET_TOKENS = 1024
"""Tokens of a slice: DINO-Med3D encodes every slice at 512 pixels, which is 32 x 32 tokens."""
TOKEN_SIDES = (4, 8, 16, 32)
"""Voxels per token: less would enlarge slices more than fourfold, more would halve them."""
MAX_PADDING = 0.05
"""Extra area of a padded slice for which the pyramid may have one more level."""
DECODER_WIDTHS = (256, 192, 128, 96)
"""Candidates for the channels of neck and decoder, widest first."""
MAX_DECODER_SHARE = 1 / 3
"""Largest share of the encoder's FLOPs that neck and decoder together may take."""


def token_side(height: int, width: int) -> int:
    """Voxels per token for which a slice has closest to TARGET_TOKENS tokens, by ratio."""

    def deviation(side: int) -> float:
        return abs(math.log(height * width / side**2 / TARGET_TOKENS))

    return min(TOKEN_SIDES, key=deviation)


def tokens_of(spec: NetworkSpec, patch: Sequence[int]) -> int:
    """Patch tokens of one slice."""
    return math.prod(-(-side // spec.voxels_per_token) for side in patch[-2:])


def levels_for(height: int, width: int, token: int) -> int:
    """Levels of the pyramid: down to the token's stride, at least 3, and one more if it pads little."""
    finest = max(2, int(math.log2(token)))
    while finest > 2 and min(height, width) < 4 * 2**finest:
        finest -= 1
    area, deeper = (round_up(height, 2**f) * round_up(width, 2**f) for f in (finest, finest + 1))
    large = min(height, width) >= 4 * 2 ** (finest + 1)
    return 1 + finest + (large and deeper <= area * (1 + MAX_PADDING))


def round_up(side: int, multiple: int) -> int:
    """The next multiple."""
    return -(-side // multiple) * multiple


def detail_widths_for(token: int, levels: int) -> tuple[int, ...]:
    """Channels of the detail stream, down to stride 4, or 8 with the coarsest tokens.

    With coarse tokens the fine levels would cost more than the encoder, so they are narrower.
    """
    widths = {16: (16, 32, 96), 32: (16, 32, 64, 96)}.get(token, (16, 64, 128))
    return widths[:levels]


def adapter_width_for(channels: int) -> int:
    """A sixth of the encoder's channels in steps of 16: 64 for ViT-S, the width of an attention head."""
    return max(16, channels // 6 // 16 * 16)


def learning_rate_for(channels: int) -> float:
    """Stage I's peak learning rate of the encoder: 5e-5 for ViT-S, less for wider ones (1 / width)."""
    return float(f"{5e-5 * 384 / max(channels, 384):.1e}")


def network_for(
    stats: DatasetStats,
    encoder: str,
    plane: tuple[int, int],
    token: int,
    *,
    single_slice: bool,
    forced: Mapping[str, Any],
) -> NetworkSpec:
    """The network for slices of a size; its decoder is the widest within MAX_DECODER_SHARE.

    Args:
        stats: the dataset.
        encoder: name of the encoder, unless it is forced.
        plane: size of a slice, voxels.
        token: voxels per token.
        single_slice: whether patches have a single slice.
        forced: fields of NetworkSpec that the user has set.
    """
    levels = levels_for(*plane, token)
    fields: dict[str, Any] = {"encoder": encoder, **forced}
    base = NetworkSpec(**fields)
    spec = replace(
        base,
        voxels_per_token=token,
        slices=1 if single_slice else forced.get("slices", 3),
        levels=levels,
        depth_kernels=depth_kernels(stats.spacing, levels, single_slice=single_slice),
        detail_widths=detail_widths_for(token, levels),
        adapter_width=adapter_width_for(encoder_size(base.encoder, base.encoder_overrides).width),
        cascade_channels=stats.cascade_channels,
    )
    if "encoder" not in spec.components:
        return spec
    for width in DECODER_WIDTHS[:-1]:
        wide = replace(spec, pyramid_width=width)
        cost = stage_two(
            wide, plane, batch=1, channels=stats.channels, classes=stats.classes
        ).components
        if cost["neck"].flops + cost["decoder"].flops <= MAX_DECODER_SHARE * cost["encoder"].flops:
            return wide
    return replace(spec, pyramid_width=DECODER_WIDTHS[-1])
