"""Arrays with a row per point: which of a file's belong to its cloud, and those that labels add."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.arrays.array_file import ArrayFile
from pointseg.files.columns.names import COLOR, COLOR_ARRAYS, POSITION_ARRAYS
from pointseg.files.labelling.labels import Labels
from pointseg.files.table.errors import CloudFileError
from pointseg.scene import FIELDS, Scene

MUST_FIT = ("color", "normal", "strength", "segment", "segment20", "segment200", "instance")
"""Arrays that belong to the points whatever their length: another length is a mistake."""
Array = TypeVar("Array", NDArray[Any], ArrayFile)


def per_point(path: Path, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Those arrays that have a row per point."""
    by_name = {name.lower(): values for name, values in arrays.items()}
    coord = next((by_name[name] for name in POSITION_ARRAYS if name in by_name), None)
    if coord is None or coord.ndim != 2 or coord.shape[1] != 3:
        has = ", ".join(f"{name} {values.shape}" for name, values in arrays.items()) or "none"
        raise CloudFileError(path, f"must hold an array 'coord' of shape (N, 3); it holds: {has}")
    for name, values in arrays.items():
        if name.lower() in MUST_FIT and len(values) != len(coord):
            raise CloudFileError(
                path, f"'{name}' has {len(values)} rows, 'coord' {len(coord)}; they must be equal"
            )
    return {name: values for name, values in arrays.items() if len(values) == len(coord)}


def arrays_of(scene: Scene) -> dict[str, NDArray[Any]]:
    """The arrays of a scene by name; positions are float64 if it has an origin."""
    coord = scene.coord + scene.origin if scene.origin.any() else scene.coord
    fields = {
        name: values
        for name, values in scene.fields.items()
        if name in FIELDS or name not in POSITION_ARRAYS
    }
    return {"coord": coord, **fields}


def labelled(
    read: Callable[[int, int], dict[str, NDArray[Any]]],
    fields: Sequence[str],
    labels: Labels,
    size: int,
) -> Iterator[tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]]:
    """What is there and what is new, in pieces of ``size`` points: classes, and all else that labels have.

    Args:
        read: gives the rows from one to another of what is there.
        fields: as ``new_fields`` gives them.
        labels: of all points.
        size: points of a piece.
    """
    largest = 0.0
    if labels.colors is not None:
        for start, part in labels.pieces(size):
            old = read(start, start + len(part))
            found = [float(old[name].max(initial=0)) for name in color_names(old)]
            largest = max([largest, *found])
    for start, segment in labels.pieces(size):
        old = read(start, start + len(segment))
        more = zip(
            labels.added_values(start, start + len(segment)), labels.added.values(), strict=True
        )
        columns = [segment, *(values.astype(kind) for values, kind in more)]
        new: dict[str, NDArray[Any]] = dict(zip(fields, columns, strict=True))
        if labels.colors is not None:
            new.update(_painted(old, labels.paint(segment), largest))
        yield old, new


def new_fields(source: Path, labels: Labels, existing: Collection[str]) -> list[str]:
    """The names of the classes, and of what else labels add."""
    return [labels.field_in(source, existing), *labels.added_names(existing)]


def color_names(names: Collection[str]) -> list[str]:
    """Which of these are the colours: three, one, or none."""
    by_name = {name.lower(): name for name in names}
    if by_name.keys() >= set(COLOR[0]):
        return [by_name[key] for key in COLOR[0]]
    return [by_name[key] for key in COLOR_ARRAYS if key in by_name][:1]


def _painted(
    old: Mapping[str, NDArray[Any]], color: NDArray[np.uint8], largest: float
) -> dict[str, NDArray[Any]]:
    """Arrays of colour by name: those that are replaced, in their type and range, or a new one."""
    names = color_names(old)
    if not names:
        return {"color": color}
    kind = np.result_type(*(old[name].dtype for name in names))
    if kind.kind == "f":
        values = (color / (255 if largest <= 1 else 1)).astype(kind)
    else:
        values = (color * np.uint16(257 if largest > 255 else 1)).astype(kind)
    if len(names) == 1:
        return {names[0]: values}
    return dict(zip(names, values.T, strict=True))


def save(path: Path, values: NDArray[Any]) -> None:
    """Write one ``.npy`` file, whole or not at all."""
    with new_file(path) as part, open(part, "wb") as stream:
        np.save(stream, values, allow_pickle=False)
