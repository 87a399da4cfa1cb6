"""The encoder that a checkpoint's names and shapes tell: every one, in every layout."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dinomed3d.lifting import MODELS, build_encoder
from planners.nnunet.identify_encoder import encoder_of_shapes, encoder_of_weights

Shapes = dict[str, tuple[int, ...]]

TO_META_DINOV2 = (("reg_token", "register_tokens"),)
TO_META_DINOV3 = (
    ("reg_token", "storage_tokens"),
    ("mlp.fc1_g.", "mlp.w1."),
    ("mlp.fc1_x.", "mlp.w2."),
)
TO_HUGGING_FACE = (
    ("cls_token", "embeddings.cls_token"),
    ("reg_token", "embeddings.register_tokens"),
    ("pos_embed", "embeddings.position_embeddings"),
    ("patch_embed.proj.", "embeddings.patch_embeddings.projection."),
    ("blocks.", "encoder.layer."),
    ("mlp.fc1_g.", "mlp.gate_proj."),
)


def in_timms_layout(name: str) -> Shapes:
    with torch.device("meta"):
        state = build_encoder(name, weights="none").vit.state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def renamed(shapes: Shapes, table: tuple[tuple[str, str], ...], prefix: str = "") -> Shapes:
    out: Shapes = {}
    for key, shape in shapes.items():
        for old, new in table:
            key = key.replace(old, new)
        out[prefix + key] = shape
    return out


@pytest.mark.parametrize("name", MODELS)
def test_every_encoder_is_identified_in_every_layout(name: str) -> None:
    timms = in_timms_layout(name)
    meta = TO_META_DINOV2 if "dinov2" in name else TO_META_DINOV3
    assert encoder_of_shapes(timms) == name
    assert encoder_of_shapes(renamed(timms, meta, "teacher.backbone.")) == name
    assert encoder_of_shapes(renamed(timms, TO_HUGGING_FACE)) == name


@pytest.mark.parametrize("registers", [1, 5])
def test_another_number_of_registers_is_no_encoder_of_ours(registers: int) -> None:
    shapes = in_timms_layout("vit_small_patch14_reg4_dinov2")
    assert encoder_of_shapes(shapes | {"reg_token": (1, registers, 384)}) is None


def test_a_real_file_of_dinov2_without_registers(shared: Path) -> None:
    file = shared / "weights" / "dinov2_vits14.safetensors"
    assert encoder_of_weights(str(file)) == "vit_small_patch14_dinov2"
