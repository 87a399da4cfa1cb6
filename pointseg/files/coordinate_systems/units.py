"""Metres per unit of the coordinates of a file: as stated, else as the file says, else metres."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pointseg.files.coordinate_systems.system import (
    CoordinateSystem,
    read_coordinate_system,
    unit_name,
)
from pointseg.files.las.header import read_header
from pointseg.files.table.errors import CloudFileError

LAS_SUFFIXES = (".las", ".laz")
REPROJECT = (
    "project it to a system in metres, such as UTM (PDAL: filters.reprojection; QGIS, ArcGIS and LAStools do it, too), "
    "or state the unit if its header is wrong"
)


UnitM = float | tuple[float, float, float]
"""Metres per unit of coordinates; three where x, y and z have units of their own."""


@dataclass(frozen=True)
class FileUnit:
    """What one unit of a file's coordinates is."""

    unit_m: UnitM
    """Metres."""
    notes: tuple[str, ...] = ()
    """What the user should know."""


def file_unit(path: Path, stated_m: float | None = None) -> FileUnit:
    """The unit of a file's coordinates. LAS and LAZ state a coordinate system, other types do not.

    Args:
        path: the file; of LAS its header is read.
        stated_m: metres per unit as the user states them, which count more than the file; None: not stated.

    Raises:
        CloudFileError: the file is damaged; its coordinates are degrees or geocentric, and no unit is stated.
    """
    if path.suffix.lower() not in LAS_SUFFIXES or path.is_dir():
        return FileUnit(1.0 if stated_m is None else stated_m)
    system = read_coordinate_system(read_header(path))
    if stated_m is not None:
        return FileUnit(stated_m, _disagreement(system, stated_m))
    if system is None:
        note = "has no coordinate system; its coordinates are taken to be metres"
        return FileUnit(1.0, (f"{note} (--unit, or unit in dataset.yaml, says another)",))
    if system.kind == "geographic":
        raise CloudFileError(
            path,
            f"its coordinates are degrees by its coordinate system ({system.name}); {REPROJECT}",
        )
    if system.kind == "geocentric":
        raise CloudFileError(
            path,
            f"its coordinates are geocentric by its coordinate system ({system.name}), in which no axis is vertical; "
            f"{REPROJECT}",
        )
    return _of_system(system)


def one_unit(path: Path, unit_m: UnitM) -> float:
    """The unit of all axes, for poses of cameras, which are in it, too.

    Raises:
        CloudFileError: heights have another one.
    """
    if isinstance(unit_m, tuple):
        raise CloudFileError(
            path,
            "its heights are in another unit than x and y, in which the poses of cameras cannot be converted; convert "
            "points and poses to one unit",
        )
    return unit_m


def _of_system(system: CoordinateSystem) -> FileUnit:
    who = f"its coordinate system ({system.name})"
    if system.problem:
        return FileUnit(
            1.0,
            (f"{who} cannot be read: {system.problem}; its coordinates are taken to be metres",),
        )
    across, up = system.horizontal_m, system.vertical_m
    if across is None:
        note = f"{who} does not say the unit of x and y: they are taken to be metres"
        return (
            FileUnit((1.0, 1.0, up or 1.0), (note,))
            if up not in (None, 1.0)
            else FileUnit(1.0, (note,))
        )
    if up is None:
        if across == 1:
            return FileUnit(1.0)
        return FileUnit(
            across,
            (
                f"{who} is in {unit_name(across)}, and says no other unit of heights: all were converted to metres",
            ),
        )
    if across == up:
        note = f"{who} is in {unit_name(across)}: converted to metres"
        return FileUnit(across, () if across == 1 else (note,))
    note = (
        f"{who} has x and y in {unit_name(across)}, heights in {unit_name(up)}: converted to metres"
    )
    return FileUnit((across, across, up), (note,))


def _disagreement(system: CoordinateSystem | None, stated_m: float) -> tuple[str, ...]:
    """What the file says where it is not what the user states."""
    if system is None or system.problem:
        return ()
    if system.kind in ("geographic", "geocentric"):
        says = "degrees" if system.kind == "geographic" else "geocentric"
    else:
        across = stated_m if system.horizontal_m is None else system.horizontal_m
        up = across if system.vertical_m is None else system.vertical_m
        if max(abs(across / stated_m - 1), abs(up / stated_m - 1)) < 1e-5:
            return ()  # one foot serves all surveys
        says = (
            unit_name(across) if across == up else f"{unit_name(across)}, heights {unit_name(up)}"
        )
    return (
        f"its coordinate system ({system.name}) says {says}; {unit_name(stated_m)} were stated, and counted",
    )
