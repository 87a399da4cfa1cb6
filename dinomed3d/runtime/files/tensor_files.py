"""The one reader of tensor files: PyTorch's and safetensors', checked, without running code from them.

PyTorch (since 1.6) saves a zip archive of uncompressed records: a pickle that describes the tensors,
and one record of bytes for each storage. Its own reader compares neither the checksums nor the sizes
that the pickle declares with the records, so both are compared here first. `weights_only=True` keeps
the pickle from calling anything but the constructors of tensors; numpy's numbers, which nnU-Net and
Pointcept save with the weights, are decoded by functions of ours.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.regular_file import special_kind
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

BLOCK = 1 << 20
"""Bytes that are read at once for a checksum."""
ASKS_FOR_CODE = re.compile(
    r"GLOBAL (\S+)|call reduce for unrecognized function (.+)|"
    r"Trying to instantiate unsupported class (\S+)|Can only build .* but got (.+)"
)
ITEM_BYTES = {"ComplexDouble": 16, "ComplexFloat": 8, "Double": 8, "Long": 8, "Float": 4, "Int": 4}
ITEM_BYTES |= {"QInt32": 4, "Half": 2, "BFloat16": 2, "Short": 2}
"""PyTorch's types of storages -> bytes of an element; one byte in all others."""
NUMBERS = {"f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q"}
NUMBERS |= {"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "b1": "?"}
"""numpy's codes of numbers -> struct's."""


class TensorFileError(UserError):
    """A file of tensors that is missing, damaged, of another format, or that asks to run code."""


def read_tensor_file(path: Path) -> Any:
    """The content of a `.safetensors` file, or else of a file that `torch.save` wrote, on the CPU.

    Args:
        path: its ending decides the format.

    Raises:
        TensorFileError: see there.
    """
    return read_safetensors(path) if path.suffix == ".safetensors" else read_torch(path)


def read_torch(source: Path | IO[bytes], *, name: str | None = None, mapped: bool = False) -> Any:
    """The content of a file that `torch.save` wrote, on the CPU.

    Args:
        source: path, or a stream that can be rewound.
        name: of the file in messages; None: its path.
        mapped: leave the tensors of a path in the file until they are used. The file must not be
            changed meanwhile; Windows does not let it be replaced.

    Returns:
        What was saved; numbers of numpy as Python's.

    Raises:
        TensorFileError: no such file, damaged, of another format, or it asks to run code.
    """
    import torch

    name = name or str(source)
    with _explained(name, source):
        _check_archive(source, name)
        if not isinstance(source, Path):
            source.seek(0)
        with _only_numbers():
            return torch.load(
                source,
                map_location="cpu",
                weights_only=True,
                mmap=mapped and isinstance(source, Path),
            )


def read_safetensors(source: Path | bytes, *, name: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU.

    The format has no checksums; its reader compares the declared sizes with the file's.

    Args:
        source: path, or the file's content.
        name: of the file in messages; None: its path.

    Raises:
        TensorFileError: no such file, damaged, or of another format.
    """
    from safetensors.torch import load, load_file

    name = name or (str(source) if isinstance(source, Path) else "safetensors")
    with _explained(name, source):
        return load(source) if isinstance(source, bytes) else load_file(source)


def safetensors_metadata(content: bytes, *, name: str) -> dict[str, str]:
    """The texts that a safetensors file carries with its tensors.

    Args:
        content: of the file.
        name: of the file in messages.

    Raises:
        TensorFileError: of another format.
    """
    with _explained(name):
        (length,) = struct.unpack_from("<Q", content)
        metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__", {})
        return metadata


@contextmanager
def _explained(name: str, source: object = None) -> Iterator[None]:
    """Turn whatever a reader raises on a bad file into one error with one message."""
    if isinstance(source, Path) and (kind := special_kind(source)):
        raise TensorFileError(
            f"{name}: cannot be read as a file of tensors: it is {kind}; save it as a file"
        )
    try:
        yield
    except TensorFileError:
        raise
    except FileNotFoundError as error:
        raise TensorFileError(f"{name}: there is no such file") from error
    except Exception as error:  # on damaged files the readers raise nearly anything
        if ran_out_of_memory(error):
            raise
        asked = ASKS_FOR_CODE.search(str(error))
        if isinstance(error, pickle.UnpicklingError) and asked:
            code = next(group for group in asked.groups() if group).splitlines()[0]
            raise TensorFileError(
                f"{name}: wants to run {code} when it is opened, which is refused. If you trust it, open it "
                "where it was made with torch.load(..., weights_only=False), and save its tensors and "
                "plain numbers alone"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise _damaged(name, f"{reason:.200}") from error


def _damaged(name: str, reason: str) -> TensorFileError:
    return TensorFileError(
        f"{name}: cannot be read as a file of tensors ({reason}); it is truncated, damaged or of another "
        "format. Copy or download it again"
    )


def _check_archive(source: Path | IO[bytes], name: str) -> None:
    """Compare checksums and sizes of all records, and the sizes of storages that the pickle declares."""
    with open(source, "rb") if isinstance(source, Path) else io.BytesIO() as opened:
        stream = opened if isinstance(source, Path) else source
        if not zipfile.is_zipfile(stream):
            stream.seek(0)
            begins_as_pickle = stream.read(1) == b"\x80"
            raise _damaged(
                name,
                "no zip archive; files of PyTorch before 1.6 have no checksums: save it again with torch.save"
                if begins_as_pickle
                else "no zip archive, which torch.save writes",
            )
        size = stream.seek(0, io.SEEK_END)
        with zipfile.ZipFile(stream) as archive:
            records = archive.infolist()
            sizes = {record.filename: record.file_size for record in records}
            if len(sizes) < len(records):
                raise _damaged(name, "two records have the same name")
            for record in records:
                if record.compress_type != zipfile.ZIP_STORED:
                    raise _damaged(
                        name, f"{record.filename} is compressed, which torch.save never does"
                    )
            if sum(sizes.values()) > size:
                raise _damaged(name, "its records declare more bytes than the file has")
            for record in records:
                with archive.open(record) as content:  # compares the checksum at the end
                    while content.read(BLOCK):
                        pass
            root = records[0].filename.split("/")[0] if records else ""
            if f"{root}/data.pkl" not in sizes:
                raise _damaged(name, "it has no data.pkl")
            _Storages(archive.read(f"{root}/data.pkl"), f"{root}/data", sizes, name).load()


class _Anything:
    """Takes the place of every class and function that a pickle names; nothing is called."""

    itemsize = 1
    """Bytes of an element, for the types of storages."""

    def __new__(cls, *_: Any, **__: Any) -> _Anything:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def _ignore(self, *_: Any, **__: Any) -> _Anything:
        return self

    __call__ = __setstate__ = __setitem__ = append = extend = add = _ignore


class _Storages(pickle._Unpickler):  # in Python: the C one allocates as much as a bad index says
    """Goes through a pickle for the sizes of its storages alone."""

    def __init__(self, content: bytes, folder: str, sizes: dict[str, int], name: str) -> None:
        super().__init__(io.BytesIO(content))
        self._folder, self._sizes, self._name = folder, sizes, name

    def find_class(self, module: str, name: str) -> Any:
        return type(
            name, (_Anything,), {"itemsize": ITEM_BYTES.get(name.removesuffix("Storage"), 1)}
        )

    def persistent_load(self, pid: Any) -> Any:
        _, kind, key, _, count = pid
        declared, real = count * kind.itemsize, self._sizes.get(f"{self._folder}/{key}", -1)
        if not declared <= real < declared + kind.itemsize:
            raise _damaged(
                self._name,
                f"storage {key} is declared with {declared} bytes and has {max(real, 0)}",
            )
        return _Anything()


class _Kind:
    """Takes the place of numpy's dtype while a file is read."""

    def __init__(self, code: str, *_: object) -> None:
        self.code, self.order = code, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = ">" if state[1] == ">" else "<"


def _constructor(module: str) -> Any:
    """Takes the place of numpy's constructor of one number, which numpy 1 and 2 have in two modules."""

    def scalar(kind: _Kind, content: bytes) -> float | int | bool:
        if not isinstance(kind, _Kind) or kind.code not in NUMBERS:
            raise pickle.UnpicklingError("GLOBAL numpy.dtype of something else than numbers")
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
"""PyTorch allows functions by the name that they give themselves, so nothing of numpy is run either."""


@contextmanager
def _only_numbers() -> Iterator[None]:
    """Allow PyTorch's own constructors and numpy's numbers; nothing that other code has allowed."""
    from torch import serialization

    before = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    serialization.add_safe_globals(STAND_INS)
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)
