"""Scenes as new LAS and LAZ files."""

from __future__ import annotations

from pathlib import Path

import laspy
import numpy as np

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.columns.from_scene import columns_of
from pointseg.files.columns.names import CLASS_FIELD, SPARE_CLASS_FIELD
from pointseg.files.las.laspy_errors import errors_of
from pointseg.files.table.errors import CloudFileError
from pointseg.scene import Scene

STEP_M = 1e-4
"""Resolution of files that are written anew; coarser for clouds of more than 200 km."""
FULL_COLOR = 257  # from 8 to 16 bits


def write_las(path: Path, scene: Scene) -> None:
    """A scene as LAS 1.4, to a tenth of a millimetre; ``.laz`` is compressed.

    Colours and intensities take the range of 16 bits; fields that LAS does not know become extra
    dimensions, the classes the extra dimension ``pointseg_class``.
    """
    columns = columns_of(scene)
    xyz = np.stack([columns.pop(axis).astype(np.float64) for axis in "xyz"], axis=1)
    if not np.isfinite(xyz).all():
        raise CloudFileError(
            path, "LAS holds no positions that are NaN or infinite; leave them out"
        )
    if CLASS_FIELD in columns:
        columns[SPARE_CLASS_FIELD] = columns.pop(CLASS_FIELD)
    if "strength" in scene and columns.get("intensity", xyz).dtype.kind == "f":
        columns["intensity"] = np.rint(scene["strength"][:, 0] * 65535).astype(np.uint16)
    for color in ("red", "green", "blue"):
        if color in columns:
            columns[color] = columns[color].astype(np.uint16) * FULL_COLOR
    with errors_of(path, "could not be made"):
        header = laspy.LasHeader(point_format=7 if "red" in columns else 6, version="1.4")
        header.offsets = scene.origin
        reach = float(np.abs(xyz - scene.origin).max(initial=0))
        header.scales = np.full(3, max(STEP_M, reach / 2e9))
        known = set(header.point_format.dimension_names)
        for name, values in columns.items():
            if name not in known:
                kind = np.uint8 if values.dtype == bool else values.dtype
                header.add_extra_dim(laspy.ExtraBytesParams(name, kind))
        las = laspy.LasData(header, laspy.ScaleAwarePointRecord.zeros(len(scene), header=header))
        las.x, las.y, las.z = xyz.T
        for name, values in columns.items():
            las[name] = values
    _store(las, path)


def without_ranges(header: laspy.LasHeader) -> None:
    """Leave out the ranges of extra dimensions, of which laspy looks at the first point of a piece alone."""
    for record in header.vlrs.get("ExtraBytesVlr"):
        for dimension in record.extra_bytes_structs:
            dimension.options &= ~(dimension.MIN_BIT_MASK | dimension.MAX_BIT_MASK)


def _store(las: laspy.LasData, path: Path) -> None:
    without_ranges(las.header)
    with new_file(path) as part, errors_of(path, "could not be written"):
        las.write(part)
