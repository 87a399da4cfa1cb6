"""Named columns of a file and the fields of a scene: which is which, in both directions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointseg.files.errors import CloudFileError
from pointseg.files.origin import split_origin
from pointseg.scene import FIELDS, IGNORE, Scene

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

CLASS_FIELD, SPARE_CLASS_FIELD = "class", "pointseg_class"


@dataclass(frozen=True, kw_only=True)
class Scales:
    """What all points of a cloud decide together, for clouds whose points are read in pieces."""

    origin: NDArray[np.float64]
    """(3,) as ``split_origin`` finds it."""
    largest_color: float
    """The largest value of all colours in the file; 0 without colours."""
    intensity_max: float
    """The intensity that becomes 1."""


def scene_of(
    path: Path,
    columns: Mapping[str, NDArray[Any]],
    *,
    name: str,
    intensity_max: float | None = None,
    scales: Scales | None = None,
) -> Scene:
    """The columns of a file as a scene.

    Positions, colours, normals, intensities and labels are recognised by name and brought into the
    form that scenes have; intensities and labels also stay as they were, under the file's own names,
    and so does every column that is not recognised.

    Args:
        path: the file, for messages.
        columns: (N,) or (N, k) arrays by the names that the file gives them.
        name: of the scene.
        intensity_max: the intensity that becomes 1; None: as ``strength_scale`` guesses it.
        scales: of the cloud that these points are a part of; None: they are the cloud.

    Raises:
        CloudFileError: no columns x, y and z, or not of numbers.
    """
    rest = dict(columns)
    xyz = _positions(path, rest)
    coord, origin = split_origin(xyz, None if scales is None else scales.origin)
    color = _triple(rest, COLOR, COLOR_ARRAYS)
    normal = _triple(rest, NORMAL, NORMAL_ARRAYS)
    fields: dict[str, NDArray[Any]] = {}
    if color is not None:
        fields["color"] = to_color(color, None if scales is None else scales.largest_color)
    if normal is not None:
        fields["normal"] = to_normal(normal)
    strength = _single(rest, STRENGTH)
    if strength is not None:
        maximum = intensity_max if scales is None else scales.intensity_max
        fields["strength"] = to_strength(strength, maximum)
    echo, echoes = (_single(rest, (name,)) for name in (RETURN_NUMBER, RETURN_COUNT))
    if echo is not None and echoes is not None:
        fields["returns"] = to_returns(echo, echoes)
    for field, names in (("segment", SEGMENT), ("instance", INSTANCE)):
        values = _single(rest, names)
        labels = None if values is None else to_labels(values)
        if labels is not None:
            fields[field] = labels
    for key, values in rest.items():
        if key in fields and key in FIELDS:
            continue  # the file's own values, but for their type
        fields[f"file_{key}" if key in FIELDS else key] = values
    return Scene(coord=coord, fields=fields, origin=origin, name=name)


def _positions(path: Path, rest: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """(N, 3) positions as floats, taken out of ``rest``."""
    names = ", ".join(rest) or "none"
    xyz = _triple(rest, POSITION, POSITION_ARRAYS)
    if xyz is None:
        raise CloudFileError(path, f"has no columns x, y and z; it has: {names}")
    if xyz.dtype.kind not in "fiu":
        raise CloudFileError(path, f"positions must be numbers, they are {xyz.dtype}")
    return xyz if xyz.dtype.kind == "f" else xyz.astype(np.float64)


class Measured(NamedTuple):
    """What ``Scales`` are found from, as a file has it."""

    xyz: NDArray[Any]
    """(N, 3) floats."""
    color: NDArray[Any] | None
    """(N, 3); None: there are no colours."""
    strength: NDArray[Any] | None
    """(N,) intensities; None: there are none."""


def measured_columns(path: Path, columns: Mapping[str, NDArray[Any]]) -> Measured:
    """The columns of a piece of a file that decide together with those of all others.

    Raises:
        CloudFileError: as ``scene_of``.
    """
    rest = dict(columns)
    xyz = _positions(path, rest)
    return Measured(xyz, _triple(rest, COLOR, COLOR_ARRAYS), _single(rest, STRENGTH))


def labels_in(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int32] | None:
    """(N,) ``segment`` of the columns of a file, or of a piece of one; None: they hold no labels."""
    found = _single(dict(columns), SEGMENT)
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
    own = {key for key in scene.fields if key not in FIELDS}
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


def to_color(values: NDArray[Any], largest: float | None = None) -> NDArray[np.float32]:
    """(N, 3) colours of a file as float32, 0 to 255; NaN becomes 0.

    Floats up to 1 are taken as 0 to 1; values above 255, as LAS files have them, as 0 to 65535.

    Args:
        values: as the file has them.
        largest: of the cloud that these points are a part of; None: they are the cloud.
    """
    color = finite_numbers(values)
    largest = largest_of(values) if largest is None else largest
    if values.dtype.kind == "f" and largest <= 1:
        color *= 255
    elif largest > 255:
        color *= np.float32(255 / 65535)
    return np.clip(color, 0, 255, out=color)


def largest_of(values: NDArray[Any]) -> float:
    """The largest value that counts in float32; 0 of none."""
    return float(finite_numbers(values).max(initial=0))


def to_normal(values: NDArray[Any]) -> NDArray[np.float32]:
    """(N, 3) normals of a file with unit length; what has no direction becomes 0."""
    normal = finite_numbers(values).astype(np.float64)  # whose squares float32 may not hold
    length = np.linalg.norm(normal, axis=1, keepdims=True)
    return np.divide(normal, length, out=np.zeros_like(normal), where=length > 0).astype(np.float32)


def to_strength(values: NDArray[Any], intensity_max: float | None = None) -> NDArray[np.float32]:
    """(N,) intensities of a file as (N, 1) float32, 0 to 1; NaN becomes 0.

    Args:
        values: as the file has them.
        intensity_max: the one that becomes 1, as all above it do; None: ``strength_scale``'s guess.
    """
    scale = strength_scale(values) if intensity_max is None else intensity_max
    return np.clip(finite_numbers(values) / np.float32(scale), 0, 1)[:, None]


def to_returns(number: NDArray[Any], count: NDArray[Any]) -> NDArray[np.float32]:
    """(N, 2) echoes of laser pulses: which one of its pulse a point is, and how many there were.

    Leaves let part of a pulse through, roofs and ground do not: the last or only echo has 1 in the first
    column, the only one 1 in the second, too. Counts below the number, such as 0 where nobody wrote it, are
    taken to be the number.

    Args:
        number: (N,) 1 for the first echo of a pulse.
        count: (N,) echoes of the pulse.

    Returns:
        number / count and 1 / count.
    """
    which = np.maximum(finite_numbers(number), 1)
    many = np.maximum(finite_numbers(count), which)
    return np.stack([which / many, 1 / many], axis=1)


def strength_scale(values: NDArray[Any]) -> int:
    """The largest possible intensity of a file, guessed: files seldom say it.

    It is taken to be 1 (floats only), 255, 4095 or 65535: the smallest of these that 99 % of the
    points stay below. A dark scan may be taken for one of a smaller scale.
    """
    return scale_above(usual_strength(values), is_float=values.dtype.kind == "f")


def scale_above(usual: float, *, is_float: bool) -> int:
    """The largest possible intensity of a file, guessed from ``usual_strength`` and whether it holds floats."""
    scales = (1, 255, 4095, 65535) if is_float else (255, 4095, 65535)
    return next((scale for scale in scales if usual <= scale), scales[-1])


def usual_strength(values: NDArray[Any]) -> float:
    """The intensity that 99 % of the points stay below: glints reach far above it."""
    if len(values) == 0:
        return 0.0
    rank = usual_rank(len(values))
    return float(np.partition(finite_numbers(values), rank)[rank])


def usual_rank(count: int) -> int:
    """Which of so many sorted intensities ``usual_strength`` is."""
    return math.ceil(0.99 * (count - 1))


def file_strength(scene: Scene) -> NDArray[Any] | None:
    """(N,) intensities of a scene as its file had them; None where they are not kept apart."""
    return _single({k: v for k, v in scene.fields.items() if k not in FIELDS}, STRENGTH)


def to_labels(values: NDArray[Any]) -> NDArray[np.int32] | None:
    """(N,) labels of a file as int32, NaN as ``IGNORE``; None if they are not whole numbers."""
    if values.dtype.kind == "f":
        missing = np.isnan(values)
        whole = np.where(missing, IGNORE, values) if missing.any() else values
        if (np.floor(whole) != whole).any():
            return None
        values = whole
    elif values.dtype.kind not in "iub":
        return None
    limits = np.iinfo(np.int32)
    if len(values) and (values.min() < limits.min or values.max() > limits.max):
        return None
    return values.astype(np.int32)


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


def finite_numbers(values: NDArray[Any]) -> NDArray[np.float32]:
    """As float32, 0 where that is not a finite number."""
    with np.errstate(over="ignore"):
        return np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)


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
