"""The columns of a file by what they mean, with the values that the file has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointseg.files.columns.names import (
    COLOR,
    COLOR_ARRAYS,
    HARMONICS,
    NORMAL,
    NORMAL_ARRAYS,
    POSITION,
    POSITION_ARRAYS,
    RETURN_COUNT,
    RETURN_NUMBER,
    SEGMENT,
    STRENGTH,
    key_of,
)
from pointseg.files.columns.values import color_of_harmonics, to_labels
from pointseg.files.table.errors import CloudFileError


class FileFields(NamedTuple):
    """The columns of a file, or of a piece of one, by what they mean, with the values that the file has."""

    xyz: NDArray[Any]
    """(N, 3) floats."""
    color: NDArray[Any] | None
    """(N, 3); None: there are no colours."""
    is_gaussian: bool
    """Whether colours were coefficients of spherical harmonics; they are numbers around 0 to 1 then."""
    normal: NDArray[Any] | None
    """(N, 3); None: there are no normals."""
    strength: NDArray[Any] | None
    """(N,) intensities; None: there are none."""
    returns: tuple[NDArray[Any], NDArray[Any]] | None
    """(N,) numbers of echoes and of all echoes of a pulse; None: one of them is not there."""
    rest: dict[str, NDArray[Any]]
    """All columns under their own names, but for positions, colours and normals."""

    @property
    def measured(self) -> dict[str, NDArray[Any]]:
        """The values of colours, normals, intensities and numbers of echoes, by the field of a scene."""
        found = {"color": self.color, "normal": self.normal, "strength": self.strength}
        found["returns"] = None if self.returns is None else self.returns[0]
        return {name: values for name, values in found.items() if values is not None}


def fields_in(path: Path, columns: Mapping[str, NDArray[Any]]) -> FileFields:
    """Find out what the columns of a file mean, by their names.

    Args:
        path: the file, for messages.
        columns: (N,) or (N, k) arrays by the names that the file gives them.

    Raises:
        CloudFileError: no columns x, y and z, or not of numbers.
    """
    rest = dict(columns)
    xyz = _positions(path, rest)
    color, is_gaussian = _triple(rest, COLOR, COLOR_ARRAYS), False
    if color is None:
        harmonics = _triple(
            dict(rest), (HARMONICS,), ()
        )  # which stay: colours are less than they are
        is_gaussian = harmonics is not None
        color = None if harmonics is None else color_of_harmonics(harmonics)
    normal = _triple(rest, NORMAL, NORMAL_ARRAYS)
    strength = _single(rest, STRENGTH)
    echo, echoes = (_single(rest, (name,)) for name in (RETURN_NUMBER, RETURN_COUNT))
    returns = None if echo is None or echoes is None else (echo, echoes)
    return FileFields(xyz, color, is_gaussian, normal, strength, returns, rest)


def _positions(path: Path, rest: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """(N, 3) positions as floats, taken out of ``rest``."""
    names = ", ".join(rest) or "none"
    xyz = _triple(rest, POSITION, POSITION_ARRAYS)
    if xyz is None:
        raise CloudFileError(path, f"has no columns x, y and z; it has: {names}")
    if xyz.dtype.kind not in "fiu":
        raise CloudFileError(path, f"positions must be numbers, they are {xyz.dtype}")
    return xyz if xyz.dtype.kind == "f" else xyz.astype(np.float64)


def labels_in(
    columns: Mapping[str, NDArray[Any]], names: Sequence[str] = SEGMENT
) -> NDArray[np.int32] | None:
    """(N,) ``segment`` of the columns of a file, or of a piece of one; None: they hold no labels.

    Args:
        columns: by name.
        names: of which the first found counts.
    """
    found = _single(dict(columns), names)
    return None if found is None else to_labels(found)


def _triple(
    rest: dict[str, NDArray[Any]], singles: Sequence[tuple[str, ...]], arrays: Sequence[str]
) -> NDArray[Any] | None:
    """Three columns, taken out of ``rest``, as one array; None if they are not there."""
    by_key = {key_of(name): name for name in reversed(rest)}
    for key in arrays:
        name = by_key.get(key)
        if name is not None and rest[name].ndim == 2 and rest[name].shape[1] == 3:
            return rest.pop(name)
    for keys in singles:
        if all(key in by_key and rest[by_key[key]].ndim == 1 for key in keys):
            return np.stack([rest.pop(by_key[key]) for key in keys], axis=1)
    return None


def _single(rest: dict[str, NDArray[Any]], names: Sequence[str]) -> NDArray[Any] | None:
    """The first column found, (N,); one of shape (N, 1) counts as well."""
    by_key = {key_of(name): name for name in reversed(rest)}
    for key in names:
        values = rest.get(by_key.get(key, ""))
        if values is not None and values.size == len(values):
            return values.reshape(-1)
    return None
