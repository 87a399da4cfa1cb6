"""Names of encoder tensors in Meta's, Hugging Face's and our own checkpoints, mapped to timm's.

The layouts follow Meta's and Hugging Face's model definitions. Tensors that a model does not need (mask
token, rotary periods, key-bias mask) are checked, then dropped.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError

log = logging.getLogger(__name__)

PATCH_WEIGHTS = (
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.weight",
    "embeddings.patch_embeddings.projection.weight",
)
# Names that wrappers of modules insert into keys.
INFIXES = re.compile(r"(?:^|(?<=\.))(?:module|_orig_mod|base_layer)\.")

HUGGING_FACE = (  # patterns -> timm's names, tried in order
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?(weight|bias)$", r"patch_embed.proj.\1"),
    (r"^(?:model\.|encoder\.)?layer\.(\d+)\.", r"blocks.\1."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.attention\.(?:attention\.)?(query|key|value)\.", r".attn.\1."),
    (
        r"\.attention\.([qkv])_proj\.",
        lambda m: f".attn.{dict(q='query', k='key', v='value')[m[1]]}.",
    ),
    (r"\.attention\.(?:o_proj|output\.dense)\.", ".attn.proj."),
    (r"\.mlp\.gate_proj\.", ".mlp.w1."),
    (r"\.mlp\.(up|down)_proj\.", r".mlp.\1."),
    (r"\.mlp\.weights_in\.", ".mlp.w12."),
    (r"\.mlp\.weights_out\.", ".mlp.w3."),
    (r"^layernorm\.", "norm."),
)


class WeightsError(UserError):
    """Encoder weights are missing, cannot be read, or do not match the model in every key."""


def to_timm(state: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Rename a checkpoint's tensors to timm's names; unknown names are kept.

    The rotary periods keep Meta's name: models compute their own, but the caller can compare.

    Args:
        state: names and tensors in any of the layouts.
        model: the model to load; its keys decide between DINOv2 and DINOv3.
        path: for messages.

    Raises:
        WeightsError: no vision transformer, or a key bias, which DINO models do not have.
    """
    state = {INFIXES.sub("", key): value for key, value in state.items()}
    anchors = [key for key in state if key.endswith(PATCH_WEIGHTS)]
    # Of several encoders take the teacher's, then the outermost one.
    anchors.sort(key=lambda key: ("teacher" not in key, len(key)))
    if not anchors:
        raise WeightsError(
            f"weights {path}: must hold a vision transformer, but has no patch embedding; its "
            f"first keys are {', '.join(list(state)[:4]) or 'none'}"
        )
    end = next(p for p in PATCH_WEIGHTS if anchors[0].endswith(p))
    prefix = anchors[0].removesuffix(end)
    left_out = [key for key in state if not key.startswith(prefix)]
    if left_out:
        log.info(
            "weights %s: %d tensors outside %r are not the encoder's", path, len(left_out), prefix
        )
    state = {
        key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)
    }
    state = _merge_lora(state, path)
    if end != PATCH_WEIGHTS[0]:
        state = {_from_hugging_face(key): value for key, value in state.items()}
    wanted = model.state_dict()
    if "pos_embed" in wanted:
        return _dinov2(state, wanted)
    return _dinov3(state, wanted, path)


def _merge_lora(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Merge the low-rank updates of our own checkpoints into their weights."""
    merged = dict(state)
    for key, value in state.items():
        name, _, part = key.rpartition(".")
        if not name.endswith(".base"):
            continue
        name = name.removesuffix(".base")
        del merged[key]
        if part == "weight":
            update = [merged.pop(f"{name}.lora_{p}", None) for p in ("up", "down", "scale")]
            if any(u is None for u in update):
                raise WeightsError(f"weights {path}: {key} has an incomplete low-rank update")
            up, down, scale = (u for u in update if u is not None)
            value = value + scale * (up @ down)
        merged[f"{name}.{part}"] = value
    return merged


def _from_hugging_face(key: str) -> str:
    for pattern, replacement in HUGGING_FACE:
        key = re.sub(pattern, replacement, key)
    return key


def _split_fused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate Hugging Face's query, key and value to qkv; a missing key bias becomes zeros."""
    fused = {k: v for k, v in state.items() if not re.search(r"\.attn\.(query|key|value)\.", k)}
    for key in state:
        if not key.endswith(".attn.query.weight"):
            continue
        name = key.removesuffix("query.weight")
        parts = [state.get(f"{name}{p}.weight") for p in ("query", "key", "value")]
        if any(p is None for p in parts):
            continue  # qkv.weight is then reported as missing
        fused[f"{name}qkv.weight"] = torch.cat([p for p in parts if p is not None])
        biases = [state.get(f"{name}{p}.bias") for p in ("query", "key", "value")]
        if any(b is not None for b in biases):
            zeros = torch.zeros(parts[0].shape[0]) if parts[0] is not None else torch.zeros(0)
            fused[f"{name}qkv.bias"] = torch.cat([zeros if b is None else b for b in biases])
    return fused


def _dinov3(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Meta's names, and those converted from Hugging Face's, to those of timm's `Eva`."""
    out = {}
    state = _split_fused(state)
    gated = any(".mlp.w1." in key for key in state)
    for key, value in state.items():
        if (
            key == "mask_token"
            or key.startswith("local_cls_norm.")
            or key.endswith(".qkv.bias_mask")
        ):
            continue  # used in pretraining only; the mask is applied below
        if key.endswith(".attn.qkv.bias"):
            mask = state.get(f"{key}_mask")
            query, middle, last = (value if mask is None else value * mask).chunk(3)
            if middle.any():
                raise WeightsError(
                    f"weights {path}: {key} has a key bias, which DINOv3 does not have"
                )
            name = key.removesuffix("qkv.bias")
            if f"{name}q_bias" not in wanted and not query.any() and not last.any():
                continue  # the 7B model has no biases, and zeros have no effect
            out[f"{name}q_bias"], out[f"{name}v_bias"] = query, last
            continue
        key = key.replace("storage_tokens", "reg_token")
        key = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", key)
        key = re.sub(r"\.mlp\.w1\.", ".mlp.fc1_g.", key)
        key = re.sub(r"\.mlp\.(w2|up)\.", ".mlp.fc1_x." if gated else ".mlp.fc1.", key)
        key = re.sub(r"\.mlp\.(w3|down)\.", ".mlp.fc2.", key)
        out[key] = value
    # timm's plain files have no query and value biases: in the published models they are zero.
    if not any(key.endswith((".q_bias", ".v_bias")) for key in out):
        zeros = {
            key: torch.zeros_like(v)
            for key, v in wanted.items()
            if key.endswith((".q_bias", ".v_bias"))
        }
        if zeros:
            log.info("weights %s: no query and value biases, zeros are used", path)
        out |= zeros
    return out


def _dinov2(state: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Meta's names, and those converted from Hugging Face's, to those of timm's `VisionTransformer`."""
    out = {}
    state = _split_fused(state)
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
    position = state.get("pos_embed")
    # The table's first entry is the class token's position. With registers timm stores their sum and
    # has no such entry; without registers it keeps the entry, as Meta does.
    if "reg_token" in wanted and position is not None and "cls_token" in state:
        if position.shape[1] == 1 + wanted["pos_embed"].shape[1]:
            state["cls_token"] = state["cls_token"] + position[:, :1]
            state["pos_embed"] = position[:, 1:]
    for key, value in state.items():
        if key == "mask_token":
            continue
        key = key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        out[key] = value
    return out


def check_periods(periods: Tensor, model: Any, path: Path) -> None:
    """Compare rotary periods with the model's, 100^(i / n): only their number shows the heads."""
    count, head = periods.numel(), model.embed_dim // model.blocks[0].attn.num_heads
    if 4 * count != head:
        raise WeightsError(
            f"weights {path}: attention heads of {4 * count} channels (by the rotary periods), but "
            f"the encoder has heads of {head}; is 'num_heads' right?"
        )
    expected = 100.0 ** (torch.arange(count, dtype=torch.float64) / count)
    if not torch.allclose(periods.double(), expected, rtol=1e-2):  # published ones are bfloat16
        raise WeightsError(
            f"weights {path}: rotary periods {periods.tolist()[:3]}... are not DINOv3's "
            f"100^(i/{count})"
        )
