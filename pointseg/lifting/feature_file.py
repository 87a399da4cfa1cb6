"""Files of features, written block by block so that they may be larger than the memory: .npz and .safetensors."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file

SUFFIXES = (".npz", ".safetensors")
"""Endings of files of features."""
_CODES = {"f8": "F64", "f4": "F32", "f2": "F16", "i4": "I32", "b1": "BOOL"}
"""Numpy's types and those of safetensors."""
_ALIGNED = 8


@dataclass(frozen=True)
class Blocks:
    """An array that is made while it is written."""

    shape: tuple[int, ...]
    """Of the whole array."""
    dtype: np.dtype[Any]
    """Of its values."""
    parts: Iterator[NDArray[Any]]
    """Its rows, some at a time, in order."""

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize

    def write(self, stream: IO[bytes]) -> None:
        """Append all rows to a stream, little-endian."""
        for part in self.parts:
            values = np.ascontiguousarray(part, self.dtype.newbyteorder("<"))
            stream.write(values.reshape(-1).view(np.uint8).data)


def of_array(array: NDArray[Any]) -> Blocks:
    """An array as one block, which is read when it is written."""
    return Blocks(array.shape, array.dtype, iter((array,)))


def write_feature_file(path: Path, arrays: Mapping[str, Blocks], about: Mapping[str, str]) -> None:
    """Write named arrays, in their order; those at the end may depend on what the first ones computed.

    Args:
        path: ends in ``.npz`` (not compressed: features do not shrink) or ``.safetensors``.
        arrays: by name.
        about: texts about the file, which only safetensors files hold.

    Raises:
        WriteError: the system refuses to write.
    """
    with new_file(path) as part:
        if path.suffix.lower() == ".npz":
            _write_npz(part, arrays)
        else:
            _write_safetensors(part, arrays, about)


def _write_npz(path: Path, arrays: Mapping[str, Blocks]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, blocks in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                header = {
                    "descr": np.lib.format.dtype_to_descr(blocks.dtype.newbyteorder("<")),
                    "fortran_order": False,
                    "shape": blocks.shape,
                }
                np.lib.format.write_array_header_1_0(entry, header)
                blocks.write(entry)


def _write_safetensors(path: Path, arrays: Mapping[str, Blocks], about: Mapping[str, str]) -> None:
    # Wide types first, so that each array begins at a multiple of its values' size.
    ordered = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": dict(about)}
    places, end = {}, 0
    for name in ordered:
        blocks = arrays[name]
        places[name], end = end, end + blocks.nbytes
        code = _CODES[blocks.dtype.str[1:]]
        header[name] = {
            "dtype": code,
            "shape": list(blocks.shape),
            "data_offsets": [places[name], end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNED)
    with open(path, "wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        begin = stream.tell()
        for name, blocks in arrays.items():
            stream.seek(begin + places[name])
            blocks.write(stream)
        stream.truncate(begin + end)
