"""LAS files copied in other colours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import laspy
import numpy as np
from numpy.typing import NDArray

from pointseg.files.las.extra_dimensions import set_extra
from pointseg.files.las.read import opened
from pointseg.files.las.rewrite import rewrite, with_color
from pointseg.files.las.write import FULL_COLOR
from pointseg.files.table.errors import CloudFileError


def paint_las(
    source: Path,
    target: Path,
    colors: NDArray[np.uint8],
    fields: Mapping[str, NDArray[Any]],
) -> None:
    """Copy a LAS or LAZ file with other colours and further extra dimensions; all else stays as it is.

    Args:
        source: the file that was read; a cloud-optimised one (COPC) becomes plain LAZ.
        target: the file to be.
        colors: (N, 3) red, green, blue, 0 to 255.
        fields: (N,) extra dimensions by name; one of the same name is replaced.

    Raises:
        CloudFileError: as ``read_las``; rows that are not the file's; a name that is a dimension of LAS.
        WriteError: the system refuses to write.
    """
    with opened(source) as reader:
        form, count = reader.header.point_format, reader.header.point_count
    for name, values in {"colors": colors, **fields}.items():
        if len(values) != count:
            raise CloudFileError(source, f"has {count} points, '{name}' has {len(values)} rows")
        if name in form.standard_dimension_names:
            raise CloudFileError(source, f"a field cannot be '{name}', a dimension of LAS")

    def change(las: laspy.LasData, start: int) -> laspy.LasData:
        rows, las = slice(start, start + len(las.points)), with_color(las)
        for name, values in fields.items():
            set_extra(las, name, values[rows])
        las.red, las.green, las.blue = colors[rows].T.astype(np.uint16) * FULL_COLOR
        return las

    rewrite(source, target, change, "could not be painted")
