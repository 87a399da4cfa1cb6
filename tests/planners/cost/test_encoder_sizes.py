"""The table of encoders against timm's own models."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dinomed3d.lifting import MODELS, DinoEncoder, build_encoder
from dinomed3d.runtime.errors import UserError
from planners.cost.encoder_sizes import ENCODERS, EncoderSize, encoder_size

SMALL, PLUS = "vit_small_patch16_dinov3", "vit_small_plus_patch16_dinov3"
SEVEN, GIANT = "vit_7b_patch16_dinov3", "vit_giant_patch14_reg4_dinov2"
TINY = {"embed_dim": 96, "depth": 2, "num_heads": 4}


def on_meta(name: str, **overrides: Any) -> DinoEncoder:
    with torch.device("meta"):
        return build_encoder(name, weights="none", **overrides)


def parameters(size: EncoderSize) -> int:
    """All of a model: blocks, patch embedding, single tokens, table of positions, last norm."""
    embedding = (3 * size.patch**2 + 1) * size.width
    tokens = (size.prefix + size.positions) * size.width
    return size.depth * size.block_parameters + embedding + tokens + 2 * size.width


def check(size: EncoderSize, encoder: DinoEncoder) -> None:
    vit = encoder.vit
    block = vit.blocks[0]
    assert size.width == encoder.channels
    assert size.depth == encoder.depth
    assert size.heads == block.attn.num_heads
    assert size.patch == encoder.stride
    assert size.prefix == vit.num_prefix_tokens
    assert size.hidden * (2 if size.gated else 1) == encoder.hidden
    assert size.rotary == (getattr(vit, "rope", None) is not None)
    assert size.positions == (0 if vit.pos_embed is None else vit.pos_embed.shape[1])
    linears = [m for m in block.modules() if isinstance(m, torch.nn.Linear)]
    assert sorted(size.block_linears) == sorted((m.in_features, m.out_features) for m in linears)
    assert size.block_parameters == sum(p.numel() for p in block.parameters())
    assert parameters(size) == sum(p.numel() for p in vit.parameters())


def test_the_table_has_every_encoder_that_can_be_built() -> None:
    assert ENCODERS.keys() == MODELS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_sizes_are_those_of_the_model(name: str) -> None:
    check(encoder_size(name, {}), on_meta(name))


@pytest.mark.parametrize(
    "overrides",
    [
        TINY,
        {"mlp_ratio": 3},
        TINY | {"mlp_ratio": 2.5},
        # 36 * 1.3 = 46.8 channels: rounded down, then up to a multiple where branches are aligned
        {"embed_dim": 36, "depth": 2, "num_heads": 3, "mlp_ratio": 1.3},
        TINY | {"init_values": 1.0, "drop_path_rate": 0.2},
    ],
    ids=["small", "narrower MLP", "both", "odd", "others change no size"],
)
@pytest.mark.parametrize("name", MODELS)
def test_overridden_sizes_are_those_of_the_model(name: str, overrides: dict[str, Any]) -> None:
    check(encoder_size(name, overrides), on_meta(name, **overrides))


def test_a_block_by_hand() -> None:
    """Width 4, hidden 8: qkv 4 x 12 with two biases, projection, two layers, two norms, two gains."""
    size = EncoderSize(width=4, depth=1, heads=1, hidden=8)
    assert size.block_linears == [(4, 12), (4, 4), (4, 8), (8, 4)]
    qkv, projection, mlp = 48 + 8, 16 + 4, (32 + 8) + (32 + 4)
    assert size.block_parameters == qkv + projection + mlp + 2 * 8 + 2 * 4


@pytest.mark.parametrize(
    ("name", "overrides", "names"),
    [
        ("resnet50", {}, "DINOMED3D_ENCODER .*'resnet50'"),
        *[
            (SMALL, {key: value}, f"OVERRIDES: '{key}'")
            for key in ("embed_dim", "depth", "num_heads")
            for value in (0, -2, 24.0, float("nan"), True, "24", None)
        ],
        *[
            (SMALL, {"mlp_ratio": value}, "OVERRIDES: 'mlp_ratio'")
            for value in (0, -1.5, float("nan"), float("inf"), True, "4", None, 0.001)
        ],
        # another image size would change DINOv2's table of positions
        ("vit_small_patch14_reg4_dinov2", {"img_size": 224}, "OVERRIDES .*img_size"),
    ],
)
def test_what_is_no_encoder_is_refused(name: str, overrides: dict[str, Any], names: str) -> None:
    with pytest.raises(UserError, match=names):
        encoder_size(name, overrides)


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        (SMALL, {"num_heads": 5}),  # 384 / 5
        (SMALL, {"embed_dim": 30, "num_heads": 3}),  # 10 channels a head: no four for the rotation
        (GIANT, {"embed_dim": 100, "num_heads": 3}),
        (GIANT, {"embed_dim": 40, "num_heads": 2, "depth": 1}),  # odd MLP: 40 * 8192 / 1536 = 213
    ],
)
def test_sizes_that_do_not_fit_are_refused_as_by_the_model(
    name: str, overrides: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="OVERRIDES"):
        encoder_size(name, overrides)
    with pytest.raises(ValueError, match="overrides"):
        on_meta(name, **overrides)


def test_dinov2_needs_no_channels_for_a_rotation() -> None:
    overrides = {"embed_dim": 30, "depth": 1, "num_heads": 3}
    name = "vit_small_patch14_reg4_dinov2"
    check(encoder_size(name, overrides), on_meta(name, **overrides))


def test_rounding_up_to_a_multiple_by_hand() -> None:
    wide = {"embed_dim": 36, "num_heads": 3, "mlp_ratio": 1.3}
    assert [encoder_size(name, wide).hidden for name in (SMALL, PLUS, SEVEN)] == [46, 48, 64]
    assert encoder_size(GIANT, wide).hidden == 23  # both branches together are 46
