"""LAS and LAZ files through laspy: every dimension kept, scale, offset and coordinate system untouched."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import laspy
import numpy as np
from laspy.point.dims import DimensionInfo
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.certainty import MEASURES
from pointseg.files.columns import CLASS_FIELD, HEIGHT, SPARE_CLASS_FIELD, columns_of
from pointseg.files.errors import CloudFileError
from pointseg.files.labels import CLASSIFICATION, OWN, UNCLASSIFIED, Labels
from pointseg.files.las_box import Outside
from pointseg.files.las_extra import legend_of, set_extra, set_measures
from pointseg.files.las_header import LasHeader, read_header
from pointseg.files.las_legend import is_replaced, name_records
from pointseg.files.las_text import COPC, open_view, original, restore_text
from pointseg.files.pieces import Pieces
from pointseg.scene import Scene

CHUNK = 1_000_000
"""Points that are decompressed at once: a wrong number in the header costs no more memory."""
STEP_M = 1e-4
"""Resolution of files that are written anew; coarser for clouds of more than 200 km."""
WITH_COLOR = {0: 2, 1: 3, 4: 5, 6: 7, 9: 10}
"""Point formats without colour, and the same with it."""
AXES = ("X", "Y", "Z")
FORMER = "input_classification"
HEIGHT_TEXT, FORMER_TEXT = "metres above the ground", "classification of the input"
"""Descriptions of dimensions, of 32 bytes at most."""
FULL_COLOR = 257  # from 8 to 16 bits


def read_las(path: Path) -> dict[str, NDArray[Any]]:
    """The dimensions of a LAS or LAZ file, with the positions as one (N, 3) ``xyz``."""
    with _opened(path) as reader:
        parts = [points.array for points in _pieces(path, reader, CHUNK)]
        points = laspy.ScaleAwarePointRecord.zeros(0, header=reader.header)
        points.array = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return _columns(path, points)


def las_pieces(path: Path) -> Pieces:
    """A LAS or LAZ file in pieces."""

    def read(size: int) -> Iterator[dict[str, NDArray[Any]]]:
        with _opened(path) as reader:
            for points in _pieces(path, reader, size):
                yield _columns(path, points)

    with _opened(path) as reader:
        return Pieces(reader.header.point_count, reader.header.point_format.size, read)


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
    What else labels have stands in ``pointseg_confidence``, ``pointseg_entropy``, ``pointseg_margin`` and
    ``height_above_ground``. Records name the classes and their codes, see ``las_legend``.
    """
    with _opened(source) as reader:
        form, count = reader.header.point_format, reader.header.point_count
    labels = labels.checked(source, count)
    taken = (CLASS_FIELD, *(measure.name for measure in MEASURES), *form.extra_dimension_names)
    name, more = labels.field_in(source, taken), replace(labels, codes=None).added_names(taken)
    legend = legend_of(labels.legend)
    if name in form.standard_dimension_names and name != CLASSIFICATION:
        raise CloudFileError(source, f"the class field cannot be '{name}', a dimension of LAS")
    codes = None if name == CLASSIFICATION else labels.codes
    _check_range(source, form.id, labels if name == CLASSIFICATION else None, codes or ())
    keep_former = codes is not None and FORMER not in form.extra_dimension_names
    keep_former = keep_former and labels.keeps_former and _is_classified(source)

    def change(las: laspy.LasData, start: int) -> laspy.LasData:
        rows = slice(start, start + len(las.points))
        segment = labels.segment[rows]
        if labels.colors is not None:
            las = _with_color(las)
        if name != CLASSIFICATION:
            set_extra(las, name, segment.astype(labels.kind), description=legend)
        else:
            las[name] = segment
        if labels.certainty is not None:
            set_measures(las, more, labels.certainty[rows])
        if labels.heights is not None:
            set_extra(las, more[-1], labels.heights[rows], description=HEIGHT_TEXT)
        if codes is not None:
            if keep_former:
                former = np.array(las.classification, np.uint8)
                set_extra(las, FORMER, former, description=FORMER_TEXT)
            las.classification = labels.coded(segment)
        if labels.colors is not None:
            las.red, las.green, las.blue = labels.paint(segment).T.astype(np.uint16) * FULL_COLOR
        return las

    records = name_records(read_header(source), name, labels.legend, codes)
    _rewrite(source, target, change, "could not be labelled", records)


def check_las(
    source: Path,
    *,
    colored: bool,
    codes: tuple[int, ...] | None,
    measured: bool = False,
    heights: bool = False,
) -> None:
    """Refuse a file of which ``label_las`` could not write a copy, by writing one of its first point alone.

    Args:
        source: the file.
        colored: whether points get colours.
        codes: of classes, as ``label_las`` gets them.
        measured: whether labels have certainty.
        heights: whether they have heights.

    Raises:
        CloudFileError: such a file.
    """

    def change(las: laspy.LasData, start: int) -> laspy.LasData:
        las = _with_color(las) if colored else las
        set_extra(las, SPARE_CLASS_FIELD, np.zeros(len(las.points), np.int32))
        if measured:
            none = np.zeros((len(las.points), len(MEASURES)), np.uint16)
            set_measures(las, [OWN + measure.name for measure in MEASURES], none)
        if heights:
            set_extra(las, OWN + HEIGHT, np.zeros(len(las.points), np.float32))
        return las

    with _opened(source) as reader:
        _check_range(source, reader.header.point_format.id, None, codes or ())
        with _errors_of(source, "is damaged or cut off"):
            first = [reader.read_points(1)]
        _copy(source, reader, io.BytesIO(), first, change, "a copy cannot be written", packed=False)


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
    with _opened(source) as reader:
        form, count = reader.header.point_format, reader.header.point_count
    for name, values in {"colors": colors, **fields}.items():
        if len(values) != count:
            raise CloudFileError(source, f"has {count} points, '{name}' has {len(values)} rows")
        if name in form.standard_dimension_names:
            raise CloudFileError(source, f"a field cannot be '{name}', a dimension of LAS")

    def change(las: laspy.LasData, start: int) -> laspy.LasData:
        rows, las = slice(start, start + len(las.points)), _with_color(las)
        for name, values in fields.items():
            set_extra(las, name, values[rows])
        las.red, las.green, las.blue = colors[rows].T.astype(np.uint16) * FULL_COLOR
        return las

    _rewrite(source, target, change, "could not be painted")


def _check_range(source: Path, form: int, labels: Labels | None, codes: tuple[int, ...]) -> None:
    """Refuse classes and codes that ``classification`` of a point format does not hold."""
    largest = 31 if form < 6 else 255
    if labels is not None:
        low, high = labels.limits
        if not 0 <= low <= high <= largest:
            raise CloudFileError(
                source,
                f"its classification holds 0 to {largest}, the classes are {low} to {high}; leave them in "
                f"{SPARE_CLASS_FIELD}",
            )
    if codes and max(codes) > largest:
        raise CloudFileError(
            source,
            f"its classification holds 0 to {largest}, the codes are {', '.join(map(str, codes))}; "
            "give smaller ones (--class-code), convert it to point format 6, or use --keep-classification",
        )


def _is_classified(path: Path) -> bool:
    """Whether some point has a class."""
    with _opened(path) as reader:
        pieces = _pieces(path, reader, CHUNK)
        return any(bool((np.array(p.classification) > UNCLASSIFIED).any()) for p in pieces)


def is_copc(path: Path) -> bool:
    """Whether a file is cloud-optimised LAZ: its first record, right behind the header, says so.

    Source: COPC specification 1.0.
    """
    with open(path, "rb") as stream:
        head = stream.read(377 + 16)
    return head[:4] == b"LASF" and head[377:].rstrip(b"\0") == COPC


@contextmanager
def _opened(path: Path) -> Iterator[laspy.LasReader]:
    """A reader of a file whose header was checked; it sees text as ``las_text`` shows it."""
    header = read_header(path)
    # One thread: the parallel reader believes the table of chunks at the end of a file, and a damaged
    # table makes it ask for memory until the system ends the whole process.
    with open_view(header) as view:
        with _errors_of(path, "is damaged or cut off"):
            reader = laspy.open(view, laz_backend=laspy.LazBackend.Lazrs)
        _name_bytes(reader.header.point_format)
        scales = np.asarray(reader.header.scales)
        if not np.isfinite([*scales, *reader.header.offsets]).all() or (scales == 0).any():
            raise CloudFileError(
                path, "its header has a scale of 0, or an offset that is not finite"
            )
        yield reader


def _name_bytes(form: laspy.PointFormat) -> None:
    """Take bytes of points that no record describes for whole numbers, which a copy can describe.

    laspy describes more than three of them as undocumented, in a way that it cannot read again.
    """
    dimensions = []
    for dimension in form.dimensions:
        left = dimension.num_bytes
        if dimension.is_standard or dimension.num_elements <= 3:
            left = 0
            dimensions.append(dimension)
        number = 0
        while left:
            size = next(size for size in (8, 4, 2, 1) if size <= left)
            name = f"{dimension.name}_{number}"
            part = DimensionInfo.from_dtype(name, np.dtype(f"u{size}"), is_standard=False)
            dimensions.append(part)
            left, number = left - size, number + 1
    form.dimensions = dimensions


def _pieces(
    path: Path, reader: laspy.LasReader, size: int
) -> Iterator[laspy.ScaleAwarePointRecord]:
    """Points in pieces of ``size``; of no points there is one piece."""
    count, outside = reader.header.point_count, Outside(path, reader.header)
    if count == 0:
        yield laspy.ScaleAwarePointRecord.zeros(0, header=reader.header)
    while reader.points_read < count:
        read = reader.points_read
        with _errors_of(path, "is damaged or cut off"):
            points = reader.read_points(size)
        if len(points) == 0:
            raise CloudFileError(path, f"is cut off after {read} points")
        outside.add(points, is_last=reader.points_read >= count)
        yield points


def _columns(path: Path, points: laspy.ScaleAwarePointRecord) -> dict[str, NDArray[Any]]:
    with _errors_of(path, "is damaged"):
        names = [name for name in points.point_format.dimension_names if name not in AXES]
        columns = {name: np.array(points[name]) for name in names}
        xyz = np.empty((len(points), 3))
        for axis, raw in enumerate(AXES):
            xyz[:, axis] = points[raw] * points.scales[axis] + points.offsets[axis]
    return {"xyz": xyz, **columns}


def _rewrite(
    source: Path,
    target: Path,
    change: Callable[[laspy.LasData, int], laspy.LasData],
    what: str,
    records: Sequence[laspy.VLR] = (),
) -> None:
    """Copy a file piece by piece, without the index of a cloud-optimised one: a copy has other chunks.

    Args:
        source: the file to read.
        target: the file to be.
        change: makes new points of a piece and the number of its first point; may change the piece.
        what: begins messages about what cannot be done.
        records: further ones of the copy, which replace those of the file with the same purpose.
    """
    with _opened(source) as reader, new_file(target) as part, open(part, "wb+") as stream:
        packed = target.suffix.lower() == ".laz"
        pieces = _pieces(source, reader, CHUNK)
        _copy(source, reader, stream, pieces, change, what, packed=packed, made=records)


def _copy(
    source: Path,
    reader: laspy.LasReader,
    stream: IO[bytes],
    pieces: Iterable[laspy.ScaleAwarePointRecord],
    change: Callable[[laspy.LasData, int], laspy.LasData],
    what: str,
    *,
    packed: bool,
    made: Sequence[laspy.VLR] = (),
) -> None:
    """Write changed pieces of a file, at least one, with its records and its text; as ``_rewrite``."""
    header, writer, start = read_header(source), None, 0
    with _errors_of(source, "is damaged or cut off"):
        extended = reader.evlrs
    for records in (reader.header.vlrs, extended or []):
        records[:] = [record for record in records if not _is_left_out(header, record, made)]
    reader.header.vlrs.extend(made)
    for points in pieces:
        with _errors_of(source, what):
            las = change(laspy.LasData(deepcopy(reader.header), points), start)
            start += len(points)
            if writer is None:
                _without_ranges(las.header)
                writer = laspy.LasWriter(stream, las.header, do_compress=packed, closefd=False)
            writer.write_points(las.points)
    assert writer is not None
    with _errors_of(source, what):
        if writer.header.version.minor >= 4 and extended is not None:
            writer.write_evlrs(extended)
        writer.close()
        restore_text(header, stream)


def _is_left_out(header: LasHeader, record: laspy.vlrs.BaseVLR, made: Sequence[laspy.VLR]) -> bool:
    """Whether a record is of the index of cloud-optimised LAZ, or is replaced."""
    found = original(header, record.user_id)
    return (found is not None and found.user == COPC) or is_replaced(found, made)


def _with_color(las: laspy.LasData) -> laspy.LasData:
    """The same points in a format that has colours."""
    if las.point_format.id not in WITH_COLOR:
        return las
    return laspy.convert(las, point_format_id=WITH_COLOR[las.point_format.id])


def _without_ranges(header: laspy.LasHeader) -> None:
    """Leave out the ranges of extra dimensions, of which laspy looks at the first point of a piece alone."""
    for record in header.vlrs.get("ExtraBytesVlr"):
        for told in record.extra_bytes_structs:
            told.options &= ~(told.MIN_BIT_MASK | told.MAX_BIT_MASK)


def _store(las: laspy.LasData, path: Path) -> None:
    _without_ranges(las.header)
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
