"""Files of pretrained 3D networks: which network is in them, its configuration and weights, and what else.

What is read, never running code from it:

- ``sonata.pth``, ``concerto_*.pth``, ``utonia.pth``: ``config`` and ``state_dict``;
- a folder of a model hub with ``config.json`` and ``model.safetensors``;
- ``pretrain-*.pth``, states of a pretraining: the student, below ``module.student.backbone.``;
- files of a fine-tuning (Pointcept, LitePT): below ``module.backbone.``, with a head for the classes next to it.

The last two, and ``.safetensors`` alone, have no configuration; see ``pretrained_config``.

Source: the layouts of the released files, as their projects' code reads them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from dinomed3d.runtime.files.tensor_files import TensorFileError, read_tensor_file
from pointseg.backbones.weights.named_tensors import BackboneWeightsError, Head

Family = Literal["sonata", "utonia", "litept"]
"""Networks that are published with weights, by their name in ``build_backbone``; Concerto is of "sonata"."""

LICENCES: Mapping[Family, str] = {
    "sonata": "CC-BY-NC 4.0 (Sonata and Concerto; not for commercial use)",
    "utonia": "CC-BY-NC 4.0 (not for commercial use)",
    "litept": "none stated with the weights (the code is MIT)",
}
"""Under what the published weights of each family may be used."""
COLUMNS: Mapping[Family, tuple[tuple[str, ...], ...]] = {
    "sonata": (("coord", "color", "normal"),),
    "utonia": (("coord", "color", "normal"),),
    "litept": (("color", "normal"), ("coord", "strength")),
}
"""The columns of ``Cloud.feat`` that each family was published with; strength has one channel, others three."""

_PREFIXES = ("module.student.backbone.", "module.backbone.", "student.backbone.", "backbone.")
_JSON_BYTES = 2**20
_INPUT: Mapping[Family, str] = {
    "sonata": "embedding.stem.linear.weight",
    "utonia": "embedding.stem.linear.weight",
    "litept": "embedding.stem.conv.weight",
}


@dataclass(frozen=True)
class PretrainedFile:
    """A network as it is in a file."""

    path: Path
    """Of the file or folder."""
    family: Family
    """Which network it is, identified by the names of its tensors."""
    config: Mapping[str, Any] | None
    """Arguments of the family's constructor; None: the file says none."""
    state: Mapping[str, Tensor]
    """Its weights, under the names of ``state_dict``."""
    head: Head | None
    """The layer that scores classes and was trained with it; None: there is none."""
    left_out: str
    """What else the file holds, in words; empty: nothing."""

    @property
    def in_channels(self) -> int:
        """Channels of the input that it reads."""
        return self.state[self.input_layer].shape[-1]

    @property
    def input_layer(self) -> str:
        """Name of the weights that read the input, whose last axis is the channels."""
        return _INPUT[self.family]

    @property
    def columns(self) -> tuple[str, ...] | None:
        """Names of the input's columns as the family was published; None: it reads another number of channels."""
        for columns in COLUMNS[self.family]:
            if sum(width_of(name) for name in columns) == self.in_channels:
                return columns
        return None


def licence_of(family: str) -> str:
    """Under what the published weights of a family may be used, and what is made from them.

    Raises:
        ValueError: another family.
    """
    for name, licence in LICENCES.items():
        if name == family:
            return licence
    raise ValueError(f"licence_of: 'family' must be one of {', '.join(LICENCES)}, got {family!r}")


def width_of(column: str) -> int:
    """Channels of a named column of ``Cloud.feat``."""
    return 1 if column == "strength" else 3


def read_pretrained(path: Path) -> PretrainedFile:
    """Read a file or folder; nothing is built yet.

    Args:
        path: see the layouts above.

    Raises:
        BackboneWeightsError: no such file, not readable without running code, or none of these networks.
    """
    path = Path(path)
    content, config = _folder(path) if path.is_dir() else _file(path)
    tensors = {str(key): value for key, value in content.items() if isinstance(value, Tensor)}
    if len(tensors) < len(content):
        other = next(key for key, value in content.items() if not isinstance(value, Tensor))
        raise BackboneWeightsError(
            f"weights {path}: entry {other!r} must be a tensor, is a {type(content[other]).__name__}"
        )
    prefix = next((p for p in _PREFIXES if any(key.startswith(p) for key in tensors)), "")
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    others = {k: v for k, v in tensors.items() if not k.startswith(prefix)}
    head = _take_head(others if prefix else state, path)
    family = _family(state, config, path)
    axes = {"litept": 5}.get(family, 2)
    if state[_INPUT[family]].dim() != axes:
        raise BackboneWeightsError(
            f"weights {path}: '{_INPUT[family]}' must have {axes} axes, has {state[_INPUT[family]].dim()}"
        )
    counts = Counter(".".join(key.split(".")[:2]) for key in others)
    left_out = ", ".join(f"{count} tensors of {name}" for name, count in sorted(counts.items()))
    return PretrainedFile(path, family, config, state, head, left_out)


def read_linear_head(path: Path) -> Head:
    """The linear layer of a file that holds nothing else, as ``sonata_linear_prob_head_sc.pth`` and its kin do.

    It scores classes by the features of all stages, see ``Sonata.upcast``.

    Raises:
        BackboneWeightsError: no such file, not readable without running code, or it holds something else.
    """
    state, _ = _file(Path(path))
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    head = _take_head(tensors, path)
    if head is None or tensors or len(state) > 2:
        raise BackboneWeightsError(
            f"weights {path}: must hold 'seg_head.weight' and 'seg_head.bias' alone, holds "
            f"{', '.join(map(str, list(state)[:3])) or 'nothing'}"
        )
    return head


def _file(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any] | None]:
    """Tensors and configuration of a file."""
    content = _read(path)
    state = content.get("state_dict", content)
    if not isinstance(state, Mapping):
        raise BackboneWeightsError(
            f"weights {path}: 'state_dict' must hold named tensors, holds a {type(state).__name__}"
        )
    config = content.get("config") if state is not content else None
    if config is not None and not isinstance(config, Mapping):
        raise BackboneWeightsError(
            f"weights {path}: 'config' must hold named arguments, holds a {type(config).__name__}"
        )
    return state, config


def _folder(path: Path) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Tensors and configuration of a folder of a model hub."""
    named = path / "config.json"
    if not named.is_file():
        raise BackboneWeightsError(
            f"weights {path}: a folder must hold config.json and model.safetensors; there is no {named}"
        )
    if named.stat().st_size > _JSON_BYTES:
        raise BackboneWeightsError(f"weights {named}: must be below 1 MB")
    try:
        config = json.loads(named.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BackboneWeightsError(f"weights {named}: is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise BackboneWeightsError(
            f"weights {named}: must hold named arguments, got {config!r:.60}"
        )
    return _read(path / "model.safetensors"), config


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = read_tensor_file(path)
    except TensorFileError as error:
        raise BackboneWeightsError(f"weights {error}") from error
    if not isinstance(content, Mapping):
        raise BackboneWeightsError(
            f"weights {path}: must hold named tensors, holds a {type(content).__name__}"
        )
    return content


def _take_head(state: dict[str, Tensor], path: Path) -> Head | None:
    """Remove the linear layer that scores classes."""
    keys = [key for key in state if key.removeprefix("module.") == "seg_head.weight"]
    if not keys:
        return None
    weight = state.pop(keys[0])
    bias = state.pop(keys[0].removesuffix("weight") + "bias", None)
    if weight.dim() != 2 or bias is not None and bias.shape != weight.shape[:1]:
        raise BackboneWeightsError(
            f"weights {path}: '{keys[0]}' must be (classes, channels) with a bias for each class, got "
            f"{tuple(weight.shape)} and {None if bias is None else tuple(bias.shape)}"
        )
    return Head(weight, bias)


def _family(state: Mapping[str, Tensor], config: Mapping[str, Any] | None, path: Path) -> Family:
    if "embedding.stem.linear.weight" in state:
        rotates = any(key.endswith(".attn.rope.inv_freq") for key in state)
        return "utonia" if rotates or "rope_base" in (config or {}) else "sonata"
    if "embedding.stem.conv.weight" in state:
        if any(".norm0.0." in key or ".conv.0." in key for key in state):
            return "litept"
        raise BackboneWeightsError(
            f"weights {path}: are of Point Transformer V3, whose embedding is a convolution; load them with "
            '"ptv3" (--backbone ptv3)'
        )
    if not state:
        raise BackboneWeightsError(
            f"weights {path}: hold a head for classes alone; give the file of the network that it belongs to"
        )
    raise BackboneWeightsError(
        f"weights {path}: must be of Sonata, Concerto, Utonia or LitePT, which have an 'embedding.stem'; "
        f"found {', '.join(list(state)[:3])}, ..."
    )
