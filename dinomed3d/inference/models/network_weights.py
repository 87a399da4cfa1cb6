"""A network's weights in files: torch's and safetensors', read without running anything in them."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dinomed3d.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""
NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}
NUMBERS |= {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "b1": "?"}
"""numpy's kinds of numbers -> struct's."""
ROOM = 1 << 30
"""Bytes that a checkpoint's tensors may always take; beyond, they may be four times the file."""


class _Kind:
    """Stands for numpy's dtype while a checkpoint is read: nnU-Net's logs hold numpy's numbers."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _constructor(module: str) -> Any:
    """Stands for numpy's constructor of one number, which lies elsewhere in numpy 1 than in 2."""

    def scalar(kind: _Kind, content: bytes) -> float | int | bool:
        if not isinstance(kind, _Kind) or kind.code not in NUMBERS:
            raise pickle.UnpicklingError("a numpy value that is not a number")
        value: float | int | bool = struct.unpack(kind.order + NUMBERS[kind.code], content)[0]
        return value

    scalar.__module__, scalar.__qualname__ = module, "scalar"
    return scalar


_Kind.__module__, _Kind.__qualname__, _Kind.__name__ = "numpy", "dtype", "dtype"
STAND_INS = [
    _Kind,
    _constructor("numpy.core.multiarray"),
    _constructor("numpy._core.multiarray"),
]
"""Torch lets code pass by the name that it says it has; so nothing of numpy is run either."""


@contextmanager
def _only_numbers() -> Iterator[None]:
    """Torch's own reader, and numpy's numbers beside; nothing that others have allowed."""
    from torch import serialization

    before = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    serialization.add_safe_globals(STAND_INS)
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def read_torch(source: Path | IO[bytes], name: str) -> dict[str, Any]:
    """A checkpoint of nnU-Net or ours, on the CPU; the tensors of a file stay there until they are used.

    Args:
        source: path, or a stream that can be rewound.
        name: of it, for messages.

    Raises:
        UserError: truncated, no checkpoint, or one that wants code.
    """
    import torch

    try:
        _check_records(source, name)
        mapped = isinstance(source, Path)
        with _only_numbers():
            try:
                content = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
            except RuntimeError as error:
                if "mmap" not in str(error):
                    raise
                content = torch.load(source, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"checkpoint {name}: cannot be read ({error})") from error
    except Exception as error:  # what is no checkpoint makes the reader raise nearly anything
        wanted = re.search(r"GLOBAL (\S+)|call reduce for unrecognized function (.+)", str(error))
        if wanted:
            code = wanted[1] or wanted[2].splitlines()[0]
            raise UserError(
                f"checkpoint {name}: wants to run {code} when it is opened, which is refused; a checkpoint can be made "
                "to do anything that way. If you know where it comes from, open it there with torch.load(..., "
                "weights_only=False) and save it again with its tensors and plain numbers only"
            ) from error
        kind = type(error).__name__
        raise UserError(
            f"checkpoint {name}: cannot be read as plain tensors ({kind}); it is truncated or no checkpoint. Copy "
            "it again"
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"checkpoint {name}: holds a {type(content).__name__}, not what nnU-Net saves"
        )
    return content


def _check_records(source: Path | IO[bytes], name: str) -> None:
    """A checkpoint is a zip, too; torch stores in it and never compresses."""
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            records = archive.infolist()
        size = source.stat().st_size if isinstance(source, Path) else source.seek(0, io.SEEK_END)
        if sum(max(r.file_size, r.compress_size) for r in records) > size:
            raise UserError(
                f"checkpoint {name}: holds more bytes than it is long, which torch never writes; it is damaged or "
                "made to fill memory"
            )
    if not isinstance(source, Path):
        source.seek(0)


def network_weights(content: Mapping[str, Any], name: str, size: int) -> dict[str, Tensor]:
    """The network's tensors of a checkpoint, without the prefixes of wrappers.

    Args:
        content: of the checkpoint.
        name: of it, for messages.
        size: of it, bytes.

    Raises:
        UserError: none there, or something else than plain tensors.
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
                f"checkpoint {name}: {key!r} of its network is no plain tensor; save it again as a state dict"
            )
        total += value.numel() * value.element_size()
    if total > max(ROOM, 16 * size):
        raise UserError(
            f"checkpoint {name}: {size} bytes that claim to hold {total} bytes of weights; it is damaged or made "
            "to fill memory"
        )
    weights = {key: value.detach() for key, value in state.items()}
    while prefix := next((p for p in PREFIXES if all(k.startswith(p) for k in weights)), None):
        weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return {key.replace("._orig_mod.", "."): value for key, value in weights.items()}


def _content(tensor: Tensor) -> Any:
    """Its bytes, in the order of its axes."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data


def shared(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are another one's memory, and the first name of that.

    There are many in nnU-Net's own networks: the decoder holds the encoder as well.

    Args:
        weights: by name.
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
    """sha256 over names, kinds, shapes and values, the same in whichever file they lie.

    Args:
        weights: by name.
    """
    same = shared(weights)
    each = {n: hashlib.sha256(_content(t)).hexdigest() for n, t in weights.items() if n not in same}
    total = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name]
        line = [name, str(tensor.dtype), list(tensor.shape), each[same.get(name, name)]]
        total.update(json.dumps(line).encode() + b"\n")
    return total.hexdigest()


def to_safetensors(weights: Mapping[str, Tensor]) -> bytes:
    """The tensors as a safetensors file, each memory once; the same bytes for the same tensors.

    Args:
        weights: by name.
    """
    from safetensors.torch import save

    same = shared(weights)
    own = {name: weights[name].clone() for name in sorted(weights) if name not in same}
    metadata = {"shared": json.dumps(same, sort_keys=True)}
    content: bytes = save({n: t.contiguous() for n, t in own.items()}, metadata=metadata)
    return content


def from_safetensors(content: bytes, name: str) -> dict[str, Tensor]:
    """The inverse of `to_safetensors`.

    Args:
        content: of the file.
        name: of it, for messages.

    Raises:
        UserError: it is none.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        weights: dict[str, Tensor] = load(content)
        length = struct.unpack("<Q", content[:8])[0]
        metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        same = json.loads(metadata.get("shared", "{}"))
        return weights | {alias: weights[kept] for alias, kept in same.items()}
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        struct.error,
    ) as error:
        raise UserError(
            f"weights {name}: no safetensors file that this version reads ({error}); copy the package again"
        ) from error
