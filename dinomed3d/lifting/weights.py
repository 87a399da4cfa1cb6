"""The one place that reads foreign checkpoints: Meta, Hugging Face, timm and our own.

A checkpoint is read without running code from it, freed of wrappers and prefixes, renamed to timm's
names, and then compared with the model key by key: anything missing, left over or of another shape
is an error. The layouts are listed in Meta's and Hugging Face's own model definitions; what each
carries that a model does not need (mask token, rotary periods, key-bias mask) is checked, then
dropped.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.tensor_files import TensorFileError, read_safetensors, read_tensor_file

log = logging.getLogger(__name__)

FILE_NAMES = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin")
ENDINGS = (".safetensors", ".pth", ".pt", ".bin")
# Wrappers around a state dict, outermost first: checkpoints of DINO, timm, nnU-Net, Lightning.
CONTAINERS = ("teacher", "model_ema", "network_weights", "model_state_dict", "state_dict", "model")
PATCH_WEIGHTS = (
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.weight",
    "embeddings.patch_embeddings.projection.weight",
)
# Wrappers of modules, whose names stand inside keys.
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
    """Weights that are not there, cannot be read, or do not fit the model in every key."""


def load_weights(model: nn.Module, source: str | os.PathLike[str], *, hub_repository: str) -> None:
    """Load a checkpoint into a timm DINOv3 or DINOv2 model; all of it or none.

    Args:
        model: timm's `Eva` (DINOv3) or `VisionTransformer` (DINOv2), changed in place.
        source: a file, a directory that holds one, or "hub".
        hub_repository: where "hub" looks, a Hugging Face repository with `model.safetensors`.

    Raises:
        WeightsError: see there.
    """
    path = find_weights(source, hub_repository=hub_repository)
    state = to_timm(read_checkpoint(path), model, path)
    periods = state.pop("rope_embed.periods", None)
    wanted = model.state_dict()
    missing = sorted(wanted.keys() - state.keys())
    unexpected = sorted(state.keys() - wanted.keys())
    shapes = [
        f"{key} is {tuple(state[key].shape)}, must be {tuple(wanted[key].shape)}"
        for key in sorted(wanted.keys() & state.keys())
        if state[key].shape != wanted[key].shape
    ]
    complaints = [
        f"{len(keys)} {what}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of wrong shape", shapes),
        )
        if keys
    ]
    if complaints:
        raise WeightsError(
            f"weights {path} do not fit the encoder (is it another size or architecture?): "
            + "; ".join(complaints)
        )
    if periods is not None:
        _check_periods(periods, model, path)
    model.load_state_dict(state)
    log.info("loaded %d tensors from %s", len(state), path)


def find_weights(source: str | os.PathLike[str], *, hub_repository: str) -> Path:
    """The checkpoint file that a setting means.

    Args:
        source: a file, a directory with exactly one checkpoint, or "hub".
        hub_repository: see `load_weights`.

    Raises:
        WeightsError: there is none, or more than one; says how to get weights.
    """
    if str(source) == "hub":
        return _download(hub_repository)
    path = Path(source).expanduser()
    if path.is_file():
        return path
    if not path.is_dir() or not str(source):  # an empty setting is not the current directory
        raise WeightsError(
            f"weights {str(source)!r}: no such file or directory. Give a checkpoint file (Meta "
            '.pth, Hugging Face or timm .safetensors), a directory with one, "hub", or "none" for '
            "random weights"
        )
    for name in FILE_NAMES:
        if (path / name).is_file():
            return path / name
    files = sorted(f for f in path.iterdir() if f.suffix in ENDINGS and not f.name.startswith("."))
    if len(files) != 1:
        found = ", ".join(f.name for f in files) or "none"
        raise WeightsError(
            f"weights {path}: the directory must hold one checkpoint ({', '.join(ENDINGS)}), "
            f"found {found}; name the file itself"
        )
    return files[0]


def _download(repository: str) -> Path:
    """`model.safetensors` of a Hugging Face repository, from its cache where it has been before."""
    from huggingface_hub import hf_hub_download

    log.warning("taking encoder weights from the hub: %s", repository)
    try:
        return Path(hf_hub_download(repository, "model.safetensors", etag_timeout=10))
    except Exception as error:  # the hub's client raises many kinds, from OSError to its own
        raise WeightsError(
            f"no weights from the hub repository {repository} ({type(error).__name__}). Ways out: "
            "connect to the network, accept the model's licence there and log in with `hf auth "
            "login`; or set DINOMED3D_WEIGHTS (argument 'weights') to a checkpoint file or "
            "directory that you downloaded (Meta .pth, Hugging Face or timm .safetensors); or set "
            'it to "none" for random weights, which are for tests and demonstrations only'
        ) from error


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, by name, wrappers removed; nothing in it is executed.

    Args:
        path: a `.safetensors` file, an index of several, or a torch file.

    Raises:
        WeightsError: truncated, no checkpoint, or one that wants to run code.
    """
    try:
        state = _read(path)
    except TensorFileError as error:
        raise WeightsError(f"weights {error}") from error
    while isinstance(state, Mapping):
        inner = next((state[c] for c in CONTAINERS if isinstance(state.get(c), Mapping)), None)
        if inner is None:
            break
        state = dict(inner)
    if not isinstance(state, Mapping):
        raise WeightsError(f"weights {path}: holds a {type(state).__name__}, not named tensors")
    return {str(key): value for key, value in state.items() if isinstance(value, Tensor)}


def _read(path: Path) -> Any:
    """Whatever a file holds: one of tensors by name, an index of several such, or a torch file."""
    if not path.name.endswith(".index.json"):
        return read_tensor_file(path)
    try:
        names = sorted(
            {os.fspath(name) for name in json.loads(path.read_text())["weight_map"].values()}
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(
            f"weights {path}: must be an index of Hugging Face with a 'weight_map' "
            f"({type(error).__name__}); download it again"
        ) from error
    state: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise WeightsError(f"weights {path}: the index names {name!r}, outside its folder")
        state |= read_safetensors(path.parent / name)
    return state


def to_timm(state: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """Rename a checkpoint's tensors as timm's model names them; only what is understood is changed.

    The rotary periods keep Meta's name: models compute their own, but the caller can compare.

    Args:
        state: names and tensors in any of the layouts.
        model: the model they are for; its own keys decide between layouts.
        path: for messages.

    Raises:
        WeightsError: no vision transformer in it, or a key bias that DINO models do not have.
    """
    state = {INFIXES.sub("", key): value for key, value in state.items()}
    anchors = [key for key in state if key.endswith(PATCH_WEIGHTS)]
    # Of several encoders (a teacher's and a student's) the teacher's, then the outermost one.
    anchors.sort(key=lambda key: ("teacher" not in key, len(key)))
    if not anchors:
        raise WeightsError(
            f"weights {path}: no patch embedding in it, so no vision transformer; its first keys "
            f"are {', '.join(list(state)[:4]) or 'none'}"
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
        return _dinov2(state, positions=wanted["pos_embed"].shape[1])
    return _dinov3(state, wanted, path)


def _merge_lora(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Fold our own low-rank updates into the weights they belong to."""
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
                raise WeightsError(
                    f"weights {path}: {key} has no complete low-rank update beside it"
                )
            up, down, scale = (u for u in update if u is not None)
            value = value + scale * (up @ down)
        merged[f"{name}.{part}"] = value
    return merged


def _from_hugging_face(key: str) -> str:
    for pattern, replacement in HUGGING_FACE:
        key = re.sub(pattern, replacement, key)
    return key


def _split_fused(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Hugging Face's separate query, key and value as one qkv, a missing key bias as zeros."""
    fused = {k: v for k, v in state.items() if not re.search(r"\.attn\.(query|key|value)\.", k)}
    for key in state:
        if not key.endswith(".attn.query.weight"):
            continue
        name = key.removesuffix("query.weight")
        parts = [state.get(f"{name}{p}.weight") for p in ("query", "key", "value")]
        if any(p is None for p in parts):
            continue  # the accounting then names qkv.weight as missing
        fused[f"{name}qkv.weight"] = torch.cat([p for p in parts if p is not None])
        biases = [state.get(f"{name}{p}.bias") for p in ("query", "key", "value")]
        if any(b is not None for b in biases):
            zeros = torch.zeros(parts[0].shape[0]) if parts[0] is not None else torch.zeros(0)
            fused[f"{name}qkv.bias"] = torch.cat([zeros if b is None else b for b in biases])
    return fused


def _dinov3(
    state: dict[str, Tensor], wanted: Mapping[str, Tensor], path: Path
) -> dict[str, Tensor]:
    """Meta's names (and what Hugging Face's became) as timm's `Eva` has them."""
    out = {}
    state = _split_fused(state)
    gated = any(".mlp.w1." in key for key in state)
    for key, value in state.items():
        if (
            key == "mask_token"
            or key.startswith("local_cls_norm.")
            or key.endswith(".qkv.bias_mask")
        ):
            continue  # of pretraining only; the mask is applied below
        if key.endswith(".attn.qkv.bias"):
            mask = state.get(f"{key}_mask")
            query, middle, last = (value if mask is None else value * mask).chunk(3)
            if middle.any():
                raise WeightsError(
                    f"weights {path}: {key} has a key bias, which DINOv3 does not have"
                )
            name = key.removesuffix("qkv.bias")
            if f"{name}q_bias" not in wanted and not query.any() and not last.any():
                continue  # the 7B model has no biases; zeros are none
            out[f"{name}q_bias"], out[f"{name}v_bias"] = query, last
            continue
        key = key.replace("storage_tokens", "reg_token")
        key = re.sub(r"\.ls([12])\.gamma$", r".gamma_\1", key)
        key = re.sub(r"\.mlp\.w1\.", ".mlp.fc1_g.", key)
        key = re.sub(r"\.mlp\.(w2|up)\.", ".mlp.fc1_x." if gated else ".mlp.fc1.", key)
        key = re.sub(r"\.mlp\.(w3|down)\.", ".mlp.fc2.", key)
        out[key] = value
    # timm's plain files carry no query and value biases: in the published models they are zero.
    if not any(key.endswith((".q_bias", ".v_bias")) for key in out):
        zeros = {
            key: torch.zeros_like(v)
            for key, v in wanted.items()
            if key.endswith((".q_bias", ".v_bias"))
        }
        if zeros:
            log.info("weights %s: no query and value biases in it, zeros are used", path)
        out |= zeros
    return out


def _dinov2(state: dict[str, Tensor], *, positions: int) -> dict[str, Tensor]:
    """Meta's names as timm's `VisionTransformer` has them, of so many patch positions."""
    out = {}
    state = _split_fused(state)
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
    position = state.get("pos_embed")
    if position is not None and position.shape[1] == 1 + positions and "cls_token" in state:
        # The first position is the class token's, and timm adds it beforehand.
        state["cls_token"] = state["cls_token"] + position[:, :1]
        state["pos_embed"] = position[:, 1:]
    for key, value in state.items():
        if key == "mask_token":
            continue
        key = key.replace(".mlp.w12.", ".mlp.fc1.").replace(".mlp.w3.", ".mlp.fc2.")
        out[key] = value
    return out


def _check_periods(periods: Tensor, model: Any, path: Path) -> None:
    """They must be the model's own, 100^(i / n), and as many: no weight's shape shows the heads."""
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
