"""Named columns of a file and the fields of a scene: which is which, in both directions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointseg.files.errors import CloudFileError
from pointseg.files.field_values import color_of_harmonics, to_labels
from pointseg.scene import FIELDS, Scene

# Names are compared in small letters and without CloudCompare's "scalar_". Of several names the
# first found counts. Single columns that belong together, or one array of three columns.
POSITION = (
    ("x", "y", "z"),
    ("easting", "northing", "height"),
    ("easting", "northing", "elevation"),
    ("easting", "northing", "altitude"),
)
POSITION_ARRAYS = ("coord", "coords", "xyz", "points", "pos")
COLOR = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ("rf", "gf", "bf"),
)
COLOR_ARRAYS = ("color", "colors", "colour", "rgb")
HARMONICS = ("f_dc_0", "f_dc_1", "f_dc_2")
"""Colours of 3D Gaussians, as coefficients of spherical harmonics."""
NORMAL = (
    ("nx", "ny", "nz"),
    ("normal_x", "normal_y", "normal_z"),
    ("normalx", "normaly", "normalz"),
)
NORMAL_ARRAYS = ("normal", "normals")
STRENGTH = ("strength", "intensity", "reflectance", "remission")
RETURN_NUMBER, RETURN_COUNT = "return_number", "number_of_returns"
SEGMENT = ("pointseg_class", "class", "label", "segment", "classification")
INSTANCE = ("instance",)
HEIGHT = "height_above_ground"

CLASS_FIELD, SPARE_CLASS_FIELD = "class", "pointseg_class"


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


def columns_of(scene: Scene) -> dict[str, NDArray[Any]]:
    """A scene as named (N,) columns, in the order in which files are written.

    Positions are float64 where the scene has an origin. A field of k columns becomes k columns with a number
    behind the name.
    """
    columns: dict[str, NDArray[Any]] = {}
    for axis, name in enumerate("xyz"):
        column = scene.coord[:, axis]
        if scene.origin.any():
            columns[name] = column.astype(np.float64) + scene.origin[axis]
        else:
            columns[name] = column
    if "color" in scene:
        color = np.clip(np.rint(scene["color"]), 0, 255).astype(np.uint8)
        columns.update(zip(("red", "green", "blue"), color.T, strict=True))
    if "normal" in scene:
        columns.update(zip(("nx", "ny", "nz"), scene["normal"].T, strict=True))
    own = {key for key in scene.fields if key not in FIELDS or key == HEIGHT}
    if "strength" in scene and not own & set(STRENGTH):
        columns["intensity"] = scene["strength"][:, 0]
    if "segment" in scene:
        columns[CLASS_FIELD] = scene["segment"]
        own -= {CLASS_FIELD, SPARE_CLASS_FIELD}
    if "instance" in scene:
        columns["instance"] = scene["instance"]
    for key in scene.fields:
        if key in own:
            values = scene[key].reshape(len(scene), -1) if len(scene) else np.empty((0, 1))
            many = values.shape[1] > 1
            for number in range(values.shape[1]):
                columns[f"{key}_{number}" if many else key] = values[:, number]
    return columns


def names_labels(name: str) -> bool:
    """Whether readers take a column of this name for the labels."""
    return key_of(name) in SEGMENT


def storable(values: NDArray[Any]) -> NDArray[Any]:
    """In a type that PLY and PCD share: floats of 4 or 8 bytes, integers of up to 4.

    Larger integers become doubles where 4 bytes do not hold them.
    """
    if values.dtype.kind == "b":
        return values.astype(np.uint8)
    if values.dtype.kind == "f":
        return values if values.dtype.itemsize in (4, 8) else values.astype(np.float32)
    if values.dtype.itemsize < 8:
        return values
    fits = len(values) == 0 or (values.min() >= -(2**31) and values.max() < 2**31)
    return values.astype(np.int32 if fits else np.float64)


def meaning_of(name: str) -> str | None:
    """What readers take a column of this name for; None: for nothing."""
    key = key_of(name)
    axes = (POSITION[:1], "xyz"), (COLOR, "rgb"), (NORMAL, ("nx", "ny", "nz"))
    for groups, meanings in axes:
        for keys in groups:
            if key in keys:
                return meanings[keys.index(key)]
    for names, meaning in ((STRENGTH, "intensity"), (SEGMENT, "label"), (INSTANCE, "instance")):
        if key in names:
            return meaning
    return key if key in (RETURN_NUMBER, RETURN_COUNT) else None


def tells_positions(names: Sequence[str]) -> bool:
    """Whether columns of these names hold positions."""
    keys = {key_of(name) for name in names}
    return any(keys >= set(of_axes) for of_axes in POSITION)


def key_of(name: str) -> str:
    """A column's name as names are compared: in small letters, without CloudCompare's ``scalar_`` and ``(m)``."""
    return re.sub(r"\s*[(\[]m[)\]]$", "", name.strip().lower().removeprefix("scalar_"))


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
