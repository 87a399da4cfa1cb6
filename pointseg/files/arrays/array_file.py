"""One ``.npy`` file, of which rows are read where they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.table.errors import CloudFileError


@dataclass(frozen=True)
class ArrayHeader:
    """What an array in a file is."""

    shape: tuple[int, ...]
    """Its extent along each axis, at least one."""
    fortran: bool
    """Whether values of a column follow each other."""
    dtype: np.dtype[Any]
    """Of the values, in the byte order of the file."""

    @classmethod
    def read(cls, stream: IO[bytes], size: int) -> ArrayHeader:
        """From a stream of ``size`` bytes, which then stands at the values.

        Raises:
            ValueError: not such a file, Python objects in it, cut off.
        """
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version} of the format")
        if dtype.hasobject:
            raise ValueError("it holds Python objects, which are not read: they could run any code")
        if dtype.kind not in "fiubV" or not shape or min(shape) < 0:
            raise ValueError(f"it holds {dtype} of shape {shape}, not an array of numbers")
        found = cls(shape, fortran, dtype)
        needed, left = found.count * dtype.itemsize, size - stream.tell()
        if needed > left:
            raise ValueError(f"it is cut off: {needed} bytes announced, {left} are left")
        return found

    @property
    def count(self) -> int:
        """How many values there are."""
        return int(np.prod(self.shape, dtype=object))

    def write(self, stream: IO[bytes]) -> None:
        """Begin a file of such an array, values row by row."""
        described = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": self.shape,
        }
        try:
            np.lib.format.write_array_header_1_0(stream, described)
        except ValueError:  # very many fields
            np.lib.format.write_array_header_2_0(stream, described)


class ArrayFile:
    """An array in a ``.npy`` file; its size is checked before anything is read."""

    def __init__(self, path: Path) -> None:
        """Read the header.

        Raises:
            CloudFileError: as ``ArrayHeader.read``.
        """
        self.path = path
        with open(path, "rb") as stream:
            try:
                self.header = ArrayHeader.read(stream, path.stat().st_size)
            except (OSError, MemoryError):
                raise
            except Exception as error:  # damaged headers make numpy and tokenize raise many things
                raise CloudFileError(path, f"is not a readable numpy file: {error}") from error
            self._start = stream.tell()
        self.shape, self.ndim = self.header.shape, len(self.header.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """(stop - start, ...) rows, in the byte order of the machine."""
        dtype, inner = self.header.dtype, self.shape[1:]
        columns = int(np.prod(inner, dtype=object))
        if not self.header.fortran or columns == 1:
            at = self._start + start * columns * dtype.itemsize
            values = np.fromfile(self.path, dtype, (stop - start) * columns, offset=at)
            values = values.reshape(stop - start, *inner)
        else:
            values = np.empty((stop - start, *inner), dtype)
            flat = values.reshape(stop - start, columns)
            order = np.arange(columns).reshape(inner, order="F").reshape(-1)
            for number, column in enumerate(order):  # the first axis runs fastest
                at = self._start + (int(column) * len(self) + start) * dtype.itemsize
                flat[:, number] = np.fromfile(self.path, dtype, stop - start, offset=at)
        return values.astype(dtype.newbyteorder("="), copy=False)
