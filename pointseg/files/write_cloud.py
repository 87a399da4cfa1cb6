"""Scenes written as new files, or over a copy of the file that they were read from, in other colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pointseg.files.formats import BIN, FORMATS, LAS, cloud_suffix, target_suffix
from pointseg.files.las.paint import paint_las
from pointseg.files.table.errors import CloudFileError
from pointseg.scene import Scene


def write_cloud(path: Path, scene: Scene) -> None:
    """A scene as a new file, of the type that its ending says; no ending: a folder of ``.npy`` files.

    Raises:
        CloudFileError: no known ending; what this type cannot hold.
        WriteError: the system refuses to write.
    """
    FORMATS[target_suffix(path)].write(path, scene)


def check_painted(scene: Scene, target: Path) -> None:
    """Refuse what ``write_painted`` could not write, before colours are found at some expense.

    Raises:
        CloudFileError: no known ending, a type without colours, points without a position in LAS.
    """
    form = FORMATS[target_suffix(target)]
    if form is BIN:
        raise CloudFileError(target, "a .bin scan cannot hold colours; write .ply or .laz")
    if form is LAS and not np.isfinite(scene.coord).all():
        raise CloudFileError(
            target, f"LAS holds no points without a position, {scene.name} has some; write .ply"
        )


def write_painted(
    source: Path,
    target: Path,
    scene: Scene,
    colors: NDArray[np.uint8],
    fields: Mapping[str, NDArray[Any]],
) -> None:
    """Write a cloud in other colours and with further fields, in its own coordinates.

    LAS from LAS is a copy: scale, offset, coordinate system and all dimensions stay as they are. Otherwise
    the scene with all of its fields is written anew.

    Args:
        source: the file that was read.
        target: the file to be; its ending says of which type.
        scene: what was read.
        colors: (N, 3) red, green, blue, 0 to 255, which replace the colours of the points.
        fields: (N,) further fields by name; one of the same name is replaced.

    Raises:
        CloudFileError: as ``check_painted`` and ``write_cloud``.
        WriteError: the system refuses to write.
    """
    check_painted(scene, target)
    if FORMATS[target_suffix(target)] is LAS and FORMATS.get(cloud_suffix(source) or "") is LAS:
        paint_las(source, target, colors, fields)
        return
    write_cloud(target, scene.with_fields(color=colors.astype(np.float32), **fields))
