"""Configurations of pretrained 3D networks: checked before anything is built from them, and guessed from tensors.

A file without ``config`` says by its tensors how many stages, blocks and channels there are, and which stages
convolve or attend. It does not say the curves, strides, heads, windows and, of LitePT, the base of the rotary
positions: these must be given.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pointseg.backbones.weights.named_tensors import BackboneWeightsError
from pointseg.backbones.weights.pretrained_file import PretrainedFile

_STAGES = 8
"""The most stages; no published network has more than five."""
_LISTS: Mapping[str, tuple[type, float, float]] = {
    "stride": (int, 1, 64), "depths": (int, 0, 64), "channels": (int, 1, 8192), "num_head": (int, 1, 512),
    "patch_size": (int, 1, 2**16), "rope_freq": (float, 1e-3, 1e9), "conv": (bool, 0, 1),
    "attn": (bool, 0, 1),
}  # fmt: skip
"""Type, least and largest value of the entries of lists, by the name without enc_ or dec_."""
_NUMBERS: Mapping[str, tuple[float, float]] = {
    "in_channels": (1, 4096), "rope_base": (1e-3, 1e9), "mlp_ratio": (1e-3, 64), "qk_scale": (0, 1e3),
    "attn_drop": (0, 1), "proj_drop": (0, 1), "drop_path": (0, 1), "layer_scale": (0, 1e3),
    "shift_coords": (0, 1e6), "jitter_coords": (0, 1e6), "rescale_coords": (0, 1e6),
}  # fmt: skip
"""Least and largest value of numbers."""
_SWITCHES = (
    "qkv_bias", "pre_norm", "shuffle_orders", "enable_rpe", "enable_flash", "upcast_attention",
    "upcast_softmax", "traceable", "mask_token", "mode", "freeze_encoder", "rope_enable",
)  # fmt: skip
_NEEDED = (
    "in_channels", "order", "stride", "enc_depths", "enc_channels", "enc_num_head", "enc_patch_size",
    "enc_mode",
)  # fmt: skip
_NEEDED_OF = {
    "sonata": (),
    "utonia": ("rope_base",),
    "litept": ("enc_conv", "enc_attn", "enc_rope_freq"),
}


def configuration(file: PretrainedFile, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with which the network of a file is built.

    Args:
        file: as it was read.
        overrides: take the place of what the file says; what it does not say must be among them.

    Raises:
        BackboneWeightsError: arguments missing, of another type, or out of bounds.
    """
    said = from_tensors(file) if file.config is None else dict(file.config)
    config = said | dict(overrides)
    needed = [*_NEEDED, *_NEEDED_OF[file.family]]
    if not config.get("enc_mode", True):
        needed += ["dec_depths", "dec_channels"]
        if any(config.get("dec_depths", ())):
            needed += ["dec_num_head", "dec_patch_size"]
            if file.family == "litept":
                needed += ["dec_conv", "dec_attn", "dec_rope_freq"]
    missing = [name for name in needed if name not in config]
    if missing:
        source = (
            "has no configuration" if file.config is None else "has a configuration without them"
        )
        raise BackboneWeightsError(
            f"weights {file.path}: {source}, and their tensors do not say {', '.join(missing)}; give these as "
            "the configuration that they were trained with has them"
        )
    for name, value in config.items():
        _check(name, value, f"weights {file.path}")
    return config


def from_tensors(file: PretrainedFile) -> dict[str, Any]:
    """What the names and shapes of tensors say of the arguments."""
    state = file.state
    encoder, decoder = _stages(state, "enc"), _stages(state, "dec")
    config: dict[str, Any] = {
        "in_channels": file.in_channels,
        "enc_mode": not decoder,
        "enc_depths": [depth for depth, _ in encoder],
        "enc_channels": [channels for _, channels in encoder],
    }
    if decoder:
        config["dec_depths"] = [depth for depth, _ in decoder]
        config["dec_channels"] = [channels for _, channels in decoder]
    if file.family == "litept":
        for part, stages in (("enc", encoder), ("dec", decoder)):
            names = [f"{part}.{part}{s}.block0" for s in range(len(stages))]
            if names:
                config[f"{part}_conv"] = [f"{name}.conv.0.weight" in state for name in names]
                config[f"{part}_attn"] = [f"{name}.attn.qkv.weight" in state for name in names]
        return config
    config["mask_token"] = "embedding.mask_token" in state
    scales = any(key.endswith(".ls1.0.gamma") for key in state)
    config["layer_scale"] = 1.0 if scales else None
    return config


def _stages(state: Mapping[str, Tensor], part: str) -> list[tuple[int, int]]:
    """Blocks and channels of each stage, as far as the names of its tensors count without a gap."""
    found: list[tuple[int, int]] = []
    while len(found) < _STAGES:
        prefix = f"{part}.{part}{len(found)}."
        own = {key.removeprefix(prefix): t for key, t in state.items() if key.startswith(prefix)}
        norm = r"down\.norm\.0|up\.proj\.1|block0\.(cpe\.2|conv\.2|norm0\.0)"
        biases = [t for key, t in own.items() if re.fullmatch(rf"({norm})\.bias", key)]
        channels = [len(bias) for bias in biases if bias.dim() == 1]
        if not channels:
            return found
        blocks = {key.split(".")[0] for key in own if key.startswith("block")}
        found.append((len(blocks), channels[0]))
    return found


def _check(name: str, value: Any, who: str) -> None:
    """Refuse an argument of another type than the constructors take, or out of bounds."""
    plain = name.removeprefix("enc_").removeprefix("dec_")
    entries = [value] if isinstance(value, str) else value
    short = isinstance(entries, list | tuple) and len(entries) <= _STAGES
    if plain == "order":
        good = short and all(isinstance(entry, str) for entry in entries)
        must = "names of curves"
    elif plain in _LISTS:
        kind, low, high = _LISTS[plain]
        must = f"at most {_STAGES} values of {low:g} to {high:g}"
        good = short and all(_fits(entry, kind, low, high) for entry in entries)
    elif plain in _NUMBERS:
        low, high = _NUMBERS[plain]
        must = f"{low:g} to {high:g}"
        good = value is None or _fits(value, float, low, high)
    elif plain in _SWITCHES:
        good, must = isinstance(value, bool), "true or false"
    else:  # what the constructor refuses by its name, or checks
        good = value is None or isinstance(value, bool | int | float | str)
        must = "a plain value"
    if not good:
        raise BackboneWeightsError(f"{who}: '{name}' must be {must}, got {value!r:.80}")


def _fits(value: Any, kind: type, low: float, high: float) -> bool:
    """Whether a value is of a type, whole numbers being of float, too, and within bounds."""
    if kind is bool:
        return isinstance(value, bool)
    kinds = (int, float) if kind is float else (int,)
    return isinstance(value, kinds) and not isinstance(value, bool) and low <= value <= high
