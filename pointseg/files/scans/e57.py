"""E57 files through pye57, which is an extra: all scans in their common coordinates.

Source: ASTM E2807.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.messages.extras import how_to_install
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.noted_columns import NotedColumns

SIGNATURE = b"ASTM-E57"
BITS = 8
"""Bits of a point, at least: more points than the file could hold are refused before memory is taken."""
COLORS = {"colorRed": "red", "colorGreen": "green", "colorBlue": "blue"}
NAMES = {
    "cartesianX": "x",
    "cartesianY": "y",
    "cartesianZ": "z",
    "intensity": "intensity",
    **COLORS,
}


def read_e57(path: Path) -> NotedColumns:
    """The points of all scans, moved by their poses; ``scan`` numbers them where there are several.

    Points that the file marks as invalid are left out, and counted in the notes.

    Raises:
        CloudFileError: pye57 is not installed; not such a file, cut off, or of scans with different fields.
    """
    _check_header(path)
    try:
        import pye57
    except ImportError as error:
        raise CloudFileError(
            path,
            f"E57 files are read through pye57; {how_to_install('e57')}; or save it as .laz or .ply with another "
            "program, such as CloudCompare",
        ) from error
    try:
        file = pye57.E57(str(path))
        try:
            scans = [_scan(path, file, number) for number in range(file.scan_count)]
        finally:
            file.close()
    except (CloudFileError, OSError, MemoryError):
        raise
    except Exception as error:  # libE57's own
        raise CloudFileError(path, f"is not a readable E57 file: {error}") from error
    if not scans:
        raise CloudFileError(path, "holds no scan")
    names = scans[0][0].keys()
    if any(columns.keys() != names for columns, _ in scans):
        raise CloudFileError(
            path, "has scans with different fields; save each as a file of its own"
        )
    joined = {name: np.concatenate([columns[name] for columns, _ in scans]) for name in names}
    sizes = [len(columns["x"]) for columns, _ in scans]
    if len(scans) > 1:
        joined["scan"] = np.repeat(np.arange(len(scans), dtype=np.int32), sizes)
    lost = sum(count for _, count in scans) - sum(sizes)
    note = f"{lost} of {lost + sum(sizes)} points are marked as invalid; they were left out"
    return NotedColumns(joined, (note,) if lost else ())


def _scan(path: Path, file: Any, number: int) -> tuple[dict[str, NDArray[Any]], int]:
    """The columns of a scan, and how many points the file has of it."""
    header = file.get_header(number)
    count, fields = int(header.point_count), set(header.point_fields)
    if count * BITS > 8 * path.stat().st_size:
        raise CloudFileError(
            path,
            f"is cut off or damaged: scan {number + 1} announces {count} points, more than the file can hold",
        )
    has_color = set(COLORS) <= fields
    if has_color and (limit := _color_limit(header)) > 255:
        raise CloudFileError(
            path,
            f"its colours reach {limit:g}, and pye57 reads 8 bits; save it with colours of 0 to 255, or as .laz",
        )
    found = file.read_scan(
        number,
        intensity="intensity" in fields,
        colors=has_color,
        transform=True,
        ignore_missing_fields=True,
    )
    return {NAMES[key]: np.asarray(found[key]) for key in NAMES if key in found}, count


def _color_limit(header: Any) -> float:
    """The largest red of a scan that its header allows; 255 where it says nothing."""
    try:
        return float(header.node["colorLimits"]["colorRedMaximum"].value())
    except Exception:  # a part of the header that may be missing
        return 255.0


def _check_header(path: Path) -> None:
    """Refuse what is no such file, or shorter than it says, before the library sees it."""
    with open(path, "rb") as stream:
        head = stream.read(48)
    if len(head) < 48 or head[:8] != SIGNATURE:
        raise CloudFileError(path, "is not an E57 file: it must begin with ASTM-E57")
    (length,) = struct.unpack_from("<Q", head, 16)
    if length > path.stat().st_size:
        raise CloudFileError(
            path,
            f"is cut off: it must have {length} bytes, {path.stat().st_size} are there; copy it again",
        )
