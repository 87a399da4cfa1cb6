"""Weights of a network: from checkpoints of nnU-Net, and as safetensors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.tensor_files import (
    TensorFileError,
    read_safetensors,
    read_torch,
    safetensors_metadata,
)

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = ("module.", "_orig_mod.")
"""Prefixes that DistributedDataParallel and torch.compile add to every name."""
ALWAYS_ACCEPTED = 1 << 30
"""Total size of tensors that is accepted whatever the size of the file, bytes."""


def read_nnunet_checkpoint(source: Path | IO[bytes], name: str) -> dict[str, Any]:
    """Read a checkpoint of nnU-Net or ours, on the CPU; tensors of a path are mapped into memory.

    Raises:
        UserError: truncated, not a checkpoint, or one that runs code.
    """
    try:
        content = read_torch(source, name=name, mapped=True)
    except TensorFileError as error:
        raise UserError(f"checkpoint {error}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"checkpoint {name}: holds a {type(content).__name__}, not what nnU-Net saves"
        )
    return content


def network_weights(content: Mapping[str, Any], name: str, size: int) -> dict[str, Tensor]:
    """The network's tensors of a checkpoint, without the prefixes of wrappers.

    Args:
        content: of the checkpoint.
        name: of the file, for messages.
        size: of the file, bytes.

    Raises:
        UserError: there are none, or others than plain tensors.
    """
    import torch

    state = content.get("network_weights")
    if not isinstance(state, Mapping) or not state:
        raise UserError(
            f"checkpoint {name}: has no 'network_weights'; it is not one of nnU-Net v2. Its entries are "
            f"{', '.join(str(key) for key in list(content)[:6])}"
        )
    total = 0
    for key, value in state.items():
        plain = isinstance(key, str) and isinstance(value, torch.Tensor)
        if not (plain and value.layout == torch.strided and value.device.type == "cpu"):
            raise UserError(
                f"checkpoint {name}: {key!r} of its network is not a plain tensor; save it again as a state dict"
            )
        total += value.numel() * value.element_size()
    if total > max(ALWAYS_ACCEPTED, 16 * size):
        raise UserError(
            f"checkpoint {name}: {size} bytes that claim to hold {total} bytes of weights; it is damaged or made "
            "to fill memory"
        )
    weights = {key: value.detach() for key, value in state.items()}
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return {key.replace("._orig_mod.", "."): value for key, value in weights.items()}


def _content(tensor: Tensor) -> Any:
    """The bytes of a tensor, in the order of its axes."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def shared(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Name of a tensor that shares memory with an earlier one -> the name of that.

    There are many in networks of nnU-Net: the decoder contains the encoder.
    """
    first: dict[tuple[Any, ...], str] = {}
    names = {}
    for name in sorted(weights):
        tensor = weights[name]
        place = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and first.setdefault(place, name) != name:
            names[name] = first[place]
    return names


def digest(weights: Mapping[str, Tensor]) -> str:
    """sha256 of names, types, shapes and values, the same for any file format."""
    same = shared(weights)
    each = {n: hashlib.sha256(_content(t)).hexdigest() for n, t in weights.items() if n not in same}
    total = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        line = [name, str(tensor.dtype), list(tensor.shape), each[same.get(name, name)]]
        total.update(json.dumps(line).encode() + b"\n")
    return total.hexdigest()


def to_safetensors(weights: Mapping[str, Tensor]) -> bytes:
    """The tensors as a safetensors file, shared memory once; the same bytes for the same tensors."""
    from safetensors.torch import save

    same = shared(weights)
    own = {name: weights[name].clone() for name in sorted(weights) if name not in same}
    metadata = {"shared": json.dumps(same, sort_keys=True)}
    content: bytes = save({n: t.contiguous() for n, t in own.items()}, metadata=metadata)
    return content


def from_safetensors(content: bytes, name: str) -> dict[str, Tensor]:
    """The inverse of `to_safetensors`.

    Raises:
        UserError: not such a file.
    """
    try:
        weights = read_safetensors(content, name=name)
        same = json.loads(safetensors_metadata(content, name=name).get("shared", "{}"))
        return weights | {alias: weights[kept] for alias, kept in same.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"weights {name}: no safetensors file that this version reads ({error}); copy the package again"
        ) from error
