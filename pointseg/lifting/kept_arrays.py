"""Arrays that are read several times: in memory up to a limit, beyond it in a temporary file."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class KeptArrays:
    """A list of arrays, of which only the first ones stay in memory."""

    def __init__(self, limit_bytes: int, folder: Path | None = None) -> None:
        """Begin empty.

        Args:
            limit_bytes: of memory that the arrays take, at most.
            folder: where the temporary file is made, when one is needed; None: the system's.
        """
        self._limit, self._folder = limit_bytes, folder
        self._held: list[NDArray[Any] | tuple[int, np.dtype[Any], tuple[int, ...]]] = []
        self._bytes = 0
        self._file: Any = None

    def __len__(self) -> int:
        return len(self._held)

    def append(self, array: NDArray[Any]) -> None:
        """Add an array, which must not be changed afterwards.

        Raises:
            OSError: the temporary file cannot be written.
        """
        if self._bytes + array.nbytes <= self._limit:
            self._bytes += array.nbytes
            self._held.append(array)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
        place = self._file.seek(0, os.SEEK_END)
        self._file.write(np.ascontiguousarray(array).data)
        self._held.append((place, array.dtype, array.shape))

    def __getitem__(self, number: int) -> NDArray[Any]:
        held = self._held[number]
        if isinstance(held, np.ndarray):
            return held
        place, dtype, shape = held
        array = np.empty(shape, dtype)
        self._file.seek(place)
        self._file.readinto(array.reshape(-1).view(np.uint8).data)
        return array

    def __enter__(self) -> KeptArrays:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
