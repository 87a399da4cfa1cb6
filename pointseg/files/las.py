"""LAS and LAZ files through laspy: every dimension kept, scale, offset and coordinate system untouched."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import laspy
import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import CLASS_FIELD, SPARE_CLASS_FIELD, columns_of
from pointseg.files.errors import CloudFileError
from pointseg.files.labels import Labels
from pointseg.scene import Scene

CHUNK = 1_000_000
"""Points that are decompressed at once: a wrong number in the header costs no more memory."""
STEP_M = 1e-4
"""Resolution of files that are written anew; coarser for clouds of more than 200 km."""
WITH_COLOR = {0: 2, 1: 3, 4: 5, 6: 7, 9: 10}
"""Point formats without colour, and the same with it."""
CLASSIFICATION, FORMER = "classification", "input_classification"
UNCLASSIFIED = 1
"""The ASPRS code of points without a class; 0 is that of points that nobody looked at."""
COPC = "copc"
FULL_COLOR = 257  # from 8 to 16 bits


def read_las(path: Path) -> dict[str, NDArray[Any]]:
    """The dimensions of a LAS or LAZ file, with the positions as one (N, 3) ``xyz``."""
    las = _load(path)
    with _errors_of(path, "is damaged"):
        names = [name for name in las.point_format.dimension_names if name not in ("X", "Y", "Z")]
        columns = {name: np.array(las[name]) for name in names}
        xyz = np.empty((len(las.points), 3))
        for axis, raw in enumerate((las.X, las.Y, las.Z)):
            xyz[:, axis] = raw * las.header.scales[axis] + las.header.offsets[axis]
    return {"xyz": xyz, **columns}


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
    with _errors_of(path, "could not be made"):
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


def label_las(source: Path, target: Path, labels: Labels) -> None:
    """Copy a LAS or LAZ file with a class for each point; cloud-optimised LAZ (COPC) becomes plain LAZ.

    The classes become an extra dimension ``pointseg_class``: LAS defines the numbers in
    ``classification`` (2 is ground), and those are not the classes of a trained model. With the field
    "classification" they are written there; with codes, these are written there, too, and what was there stays in
    ``input_classification``, unless it was all unclassified. With colours, a point format without becomes that with.
    """
    las = _load_to_copy(source)
    labels = labels.checked(source, len(las.points))
    segment = labels.segment
    name = labels.field_in(source, (CLASS_FIELD, *las.point_format.extra_dimension_names))
    with _errors_of(source, "could not be labelled"):
        if labels.colors is not None:
            las = _with_color(las)
        if name in las.point_format.standard_dimension_names and name != CLASSIFICATION:
            raise CloudFileError(source, f"the class field cannot be '{name}', a dimension of LAS")
        if name == CLASSIFICATION:
            largest = 31 if las.point_format.id < 6 else 255
            if len(segment) and not 0 <= segment.min() <= segment.max() <= largest:
                raise CloudFileError(
                    source,
                    f"its classification holds 0 to {largest}, the classes are {segment.min()} to "
                    f"{segment.max()}; leave them in {SPARE_CLASS_FIELD}",
                )
        else:
            if name in las.point_format.extra_dimension_names:
                las.remove_extra_dim(name)
            las.add_extra_dim(laspy.ExtraBytesParams(name, np.dtype(labels.kind)))
        las[name] = segment
        if labels.codes is not None and name != CLASSIFICATION:
            _classify(las, source, segment, labels.codes)
        if labels.colors is not None:
            las.red, las.green, las.blue = labels.paint().T.astype(np.uint16) * FULL_COLOR
    _store(las, target)


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
    las = _load_to_copy(source)
    for name, values in {"colors": colors, **fields}.items():
        if len(values) != len(las.points):
            raise CloudFileError(
                source, f"has {len(las.points)} points, '{name}' has {len(values)} rows"
            )
    with _errors_of(source, "could not be painted"):
        las = _with_color(las)
        for name, values in fields.items():
            if name in las.point_format.standard_dimension_names:
                raise CloudFileError(source, f"a field cannot be '{name}', a dimension of LAS")
            if name in las.point_format.extra_dimension_names:
                las.remove_extra_dim(name)
            las.add_extra_dim(laspy.ExtraBytesParams(name, values.dtype))
            las[name] = values
        las.red, las.green, las.blue = colors.T.astype(np.uint16) * FULL_COLOR
    _store(las, target)


def _classify(
    las: laspy.LasData, source: Path, segment: NDArray[np.int32], codes: tuple[int, ...]
) -> None:
    """Put the codes of classes into ``classification``; former values move to ``input_classification``."""
    largest = 31 if las.point_format.id < 6 else 255
    if max(codes) > largest:
        raise CloudFileError(
            source,
            f"its classification holds 0 to {largest}, the codes are {', '.join(map(str, codes))}",
        )
    former = np.array(las.classification)
    if FORMER not in las.point_format.extra_dimension_names and (former > UNCLASSIFIED).any():
        las.add_extra_dim(laspy.ExtraBytesParams(FORMER, np.uint8))
        las[FORMER] = former
    table = np.array([*codes, UNCLASSIFIED], np.uint8)
    las.classification = table[np.where(segment < 0, len(codes), segment)]


def is_copc(path: Path) -> bool:
    """Whether a file is cloud-optimised LAZ: its first record, right behind the header, says so.

    Source: COPC specification 1.0.
    """
    with open(path, "rb") as stream:
        head = stream.read(377 + 16)
    return head[:4] == b"LASF" and head[377:].rstrip(b"\0") == COPC.encode()


def _load(path: Path) -> laspy.LasData:
    """Header, points and all records of a file."""
    _check_header(path)
    # One thread: the parallel reader believes the table of chunks at the end of a file, and a damaged
    # table makes it ask for memory until the system ends the whole process.
    backend = laspy.LazBackend.Lazrs
    with _errors_of(path, "is damaged or cut off"), laspy.open(path, laz_backend=backend) as reader:
        scales = np.asarray(reader.header.scales)
        if not np.isfinite([*scales, *reader.header.offsets]).all() or (scales == 0).any():
            raise CloudFileError(
                path, "its header has a scale of 0, or an offset that is not finite"
            )
        parts = []
        while reader.points_read < reader.header.point_count:
            parts.append(reader.read_points(CHUNK).array)
            if len(parts[-1]) == 0:
                raise CloudFileError(path, f"is cut off after {sum(map(len, parts))} points")
        points = laspy.ScaleAwarePointRecord.zeros(0, header=reader.header)
        if parts:
            points.array = np.concatenate(parts) if len(parts) > 1 else parts[0]
        las = laspy.LasData(reader.header, points)
        las.evlrs = reader.evlrs
        return las


def _load_to_copy(path: Path) -> laspy.LasData:
    """As ``_load``, without the index of a cloud-optimised file: a copy has other chunks."""
    las = _load(path)
    for records in (las.header.vlrs, las.evlrs or []):
        records[:] = [record for record in records if record.user_id != COPC]
    return las


def _with_color(las: laspy.LasData) -> laspy.LasData:
    """The same points in a format that has colours."""
    if las.point_format.id not in WITH_COLOR:
        return las
    return laspy.convert(las, point_format_id=WITH_COLOR[las.point_format.id])


def _check_header(path: Path) -> None:
    """Refuse numbers of records and points that the file cannot hold, which laspy would allocate."""
    size = path.stat().st_size
    with open(path, "rb") as stream:
        head = stream.read(375)
    if head[:4] != b"LASF" or len(head) < 227:
        raise CloudFileError(path, "is not a LAS file, or cut off: it must begin with LASF")
    header_size, points_at, records = struct.unpack_from("<HII", head, 94)
    form, row, count = struct.unpack_from("<BHI", head, 104)
    extended_at = extended = 0
    if head[25] >= 4:
        if len(head) < 375:
            raise CloudFileError(path, "is cut off within its header")
        extended_at, extended, count = struct.unpack_from("<QIQ", head, 235)
    if not header_size + 54 * records <= points_at <= size:
        what = f"{records} records do not fit before the points"
    elif extended and extended_at + 60 * extended > size:
        what = f"{extended} extended records at {extended_at} are missing"
    elif form < 64 and points_at + count * row > size:  # not compressed
        what = f"{count} points take {count * row} bytes, {size - points_at} are left"
    else:
        return
    raise CloudFileError(path, f"is cut off or damaged: {what}; copy or export it again")


def _store(las: laspy.LasData, path: Path) -> None:
    with new_file(path) as part, _errors_of(path, "could not be written"):
        las.write(part)


@contextmanager
def _errors_of(path: Path, what: str) -> Iterator[None]:
    """Whatever laspy and lazrs raise, as our error: a damaged file makes them raise many things."""
    try:
        yield
    except (CloudFileError, OSError, MemoryError):
        raise
    except BaseException as error:
        # What panics in lazrs (it is written in Rust) comes as no Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CloudFileError(path, f"{what}: {error or type(error).__name__}") from error
