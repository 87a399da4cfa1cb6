"""Pictures of a result, next to it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.datasets.axes import FileAxes, upright
from pointseg.datasets.classes import ClassList
from pointseg.pictures import labelled
from pointseg.pictures.viewpoints import VIEWPOINTS
from pointseg.scene import Scene


def picture_file(target: Path, viewpoint: str) -> Path:
    """The picture of a result from one viewpoint."""
    return target.with_name(f"{target.name}.{viewpoint}.png")


def write_pictures(
    target: Path,
    scene: Scene,
    labels: NDArray[np.int32],
    classes: ClassList,
    axes: FileAxes,
) -> None:
    """Write pictures of a result.

    Args:
        target: the result.
        scene: its points, in unit and axes of the file.
        labels: (N,) their classes.
        classes: their names and colours.
        axes: unit and vertical axis of the file.
    """
    bare = replace(scene, fields={})
    coord = upright(bare, unit_m=axes.unit_m, up=axes.up).coord
    for viewpoint in VIEWPOINTS:
        picture = labelled(coord, labels, classes.names, classes.colors, viewpoint=viewpoint)
        with new_file(picture_file(target, viewpoint)) as part:
            picture.save(part, format="PNG")
