"""PCD files of the Point Cloud Library: text, binary and compressed; organised clouds stay organised."""

from __future__ import annotations

import struct
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.files.columns import (
    checked_segment,
    class_field,
    columns_of,
    paint,
    scene_of,
    storable,
)
from pointseg.files.errors import CloudFileError
from pointseg.files.lzf import MAX_RATIO, compress, decompress
from pointseg.files.pcd_header import PADDING, Field, Header, extended, read_header
from pointseg.files.rows import as_texts, copy_rows, parse_rows
from pointseg.scene import Scene

PACKED = ("rgb", "rgba")
"""Fields that hold a colour in one value of four bytes: 0xAARRGGBB, be it called float or integer."""


def read_pcd(path: Path, *, strength_max: float | None = None) -> Scene:
    """All points of a PCD file; those of organised clouds row by row.

    Raises:
        CloudFileError: not a PCD file, a malformed header, too few data, damaged compression.
    """
    header = read_header(path)
    columns: dict[str, NDArray[Any]] = {}
    for field, values in zip(header.fields, _read_fields(header), strict=True):
        if field.name == PADDING:
            continue
        if field.name in PACKED and field.count == 1 and field.kind in ("f4", "u4", "i4"):
            packed = values[:, 0].view("u4")
            channels = [(packed >> shift & 255).astype(np.uint8) for shift in (16, 8, 0)]
            columns.update(zip(("red", "green", "blue"), channels, strict=True))
        else:
            columns[field.name] = values[:, 0] if field.count == 1 else values
    return scene_of(path, columns, name=path.stem, strength_max=strength_max)


def write_pcd(path: Path, scene: Scene) -> None:
    """A scene as a binary PCD file; positions are doubles if it has an origin."""
    columns = {key.replace(" ", "_"): storable(v) for key, v in columns_of(scene).items()}
    if "color" in scene:
        red, green, blue = (columns.pop(key).astype("u4") for key in ("red", "green", "blue"))
        columns["rgb"] = red << 16 | green << 8 | blue
    kinds = {key: f"{v.dtype.kind}{v.dtype.itemsize}" for key, v in columns.items()}
    lines = [
        "# .PCD v0.7 - Point Cloud Data file format",
        "VERSION 0.7",
        f"FIELDS {' '.join(columns)}",
        f"SIZE {' '.join(kind[1] for kind in kinds.values())}",
        f"TYPE {' '.join(kind[0].upper() for kind in kinds.values())}",
        f"COUNT {' '.join('1' for _ in columns)}",
        f"WIDTH {len(scene)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(scene)}",
        "DATA binary",
        "",
    ]
    rows = np.empty(len(scene), [(key, "<" + kind) for key, kind in kinds.items()])
    for key, values in columns.items():
        rows[key] = values
    with new_file(path) as part, open(part, "wb") as stream:
        stream.write("\n".join(lines).encode())
        stream.write(rows.tobytes())


def label_pcd(
    source: Path,
    target: Path,
    segment: NDArray[Any],
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
) -> None:
    """Copy a PCD file with a class for each point; form, viewpoint and all else stay as they are.

    Args:
        source: the file that was read.
        target: the file to be.
        segment: (N,) classes.
        colors: (K, 3) colours of the classes; given, they replace those of the points.
        field: for the classes; see ``class_field``.

    Raises:
        CloudFileError: as ``read_pcd``; ``segment`` does not fit.
    """
    header = read_header(source)
    segment = checked_segment(source, segment, header.points)
    known = {f.name: number for number, f in enumerate(header.fields)}
    name = class_field(source, known, field)
    if name in known and header.fields[known[name]].count > 1:
        raise CloudFileError(source, f"field '{name}' holds several values a point, not a class")
    added = {name: (Field(name, "i4"), segment)}
    if colors is not None:
        red, green, blue = paint(segment, colors).astype("u4").T
        color = next((f for f in header.fields if f.name in PACKED and f.kind[1] == "4"), None)
        color = color or Field("rgb", "u4")
        opaque = np.uint32(0xFF000000 if color.name == "rgba" and color.kind != "f4" else 0)
        packed = red << np.uint32(16) | green << np.uint32(8) | blue | opaque
        added[color.name] = (color, packed.view(color.kind))
    new = extended(header, [found for found, _ in added.values()])
    with new_file(target) as part, open(part, "wb") as stream:
        stream.write(b"".join(new.lines))
        if header.form == "ascii":
            _copy_text(header, new, added, stream)
        else:
            _write_binary(header, new, added, stream)


def _read_fields(header: Header) -> list[NDArray[Any]]:
    """(N, count) values of each field."""
    with open(header.path, "rb") as stream:
        stream.seek(header.size)
        if header.form == "ascii":
            width = sum(f.count for f in header.fields)
            table = parse_rows(header.path, stream, header.points, columns=width, what="point")
            return _typed(header, table)
        if header.form == "binary":
            return _read_binary(header, stream)
        return _read_compressed(header, stream)


def _typed(header: Header, table: NDArray[np.float64]) -> list[NDArray[Any]]:
    """The columns of text in the types that the header gives them."""
    fields, at = [], 0
    for field in header.fields:
        values = table[:, at : at + field.count]
        at += field.count
        if field.kind[0] != "f" and len(values):
            limits = np.iinfo(field.kind)
            # A packed colour is sometimes called signed and written unsigned, or the other way.
            if field.kind[1] == "4" and field.name in PACKED:
                values = np.where(values < 0, values + 2.0**32, values)
                fields.append(values.astype(np.uint32).view("<" + field.kind))
                continue
            fits = (values >= limits.min) & (values <= limits.max) & (np.floor(values) == values)
            if not fits.all():
                raise CloudFileError(
                    header.path,
                    f"field '{field.name}' holds what is no {np.dtype(field.kind).name}",
                )
        with np.errstate(over="ignore", under="ignore"):
            fields.append(values.astype("<" + field.kind))
    return fields


def _read_binary(header: Header, stream: BufferedReader) -> list[NDArray[Any]]:
    left = header.path.stat().st_size - stream.tell()
    needed = header.points * header.dtype.itemsize
    if needed > left:
        raise CloudFileError(
            header.path,
            f"is cut off: {header.points} points take {needed} bytes, {left} are left; "
            f"copy or export it again",
        )
    rows = np.fromfile(stream, header.dtype, header.points)
    return [np.ascontiguousarray(rows[str(i)]) for i in range(len(header.fields))]


def _read_compressed(header: Header, stream: BufferedReader) -> list[NDArray[Any]]:
    """Each field's values stand together, then all are compressed as one."""
    left = header.path.stat().st_size - stream.tell() - 8
    packed, size = struct.unpack("<II", stream.read(8)) if left >= 0 else (0, 0)
    needed = header.points * header.dtype.itemsize
    if packed > max(left, 0):
        raise CloudFileError(
            header.path,
            f"is cut off: {packed} compressed bytes announced, {left} are left; copy or export it again",
        )
    if size != needed or size > packed * MAX_RATIO:
        raise CloudFileError(
            header.path, f"{header.points} points take {needed} bytes, {size} announced in {packed}"
        )
    try:
        data = decompress(stream.read(packed), size)
    except ValueError as error:
        raise CloudFileError(header.path, f"its compressed data are damaged: {error}") from error
    fields, at = [], 0
    for field in header.fields:
        count = header.points * field.count
        values = np.frombuffer(data, "<" + field.kind, count, at)
        fields.append(values.reshape(header.points, field.count))
        at += values.nbytes
    return fields


def _write_binary(
    header: Header,
    new: Header,
    added: dict[str, tuple[Field, NDArray[Any]]],
    stream: BufferedWriter,
) -> None:
    old = _read_fields(header)
    columns = [
        added[field.name][1][:, None] if field.name in added else old[number]
        for number, field in enumerate(new.fields)
    ]
    if header.form == "binary":
        rows = np.empty(new.points, new.dtype)
        for number, values in enumerate(columns):
            rows[str(number)] = values
        stream.write(rows.tobytes())
        return
    pairs = zip(columns, new.fields, strict=True)
    data = b"".join(values.astype("<" + field.kind).tobytes() for values, field in pairs)
    packed = compress(data)
    if len(data) >= 2**32:
        raise CloudFileError(header.path, "is too large for compression, which ends at 4 GiB")
    stream.write(struct.pack("<II", len(packed), len(data)) + packed)


def _copy_text(
    header: Header,
    new: Header,
    added: dict[str, tuple[Field, NDArray[Any]]],
    stream: BufferedWriter,
) -> None:
    starts = np.cumsum([0, *(f.count for f in header.fields)]).tolist()
    columns = {f.name: start for f, start in zip(header.fields, starts, strict=False)}
    texts = {name: as_texts(values) for name, (_, values) in added.items()}
    with open(header.path, "rb") as old:
        old.seek(header.size)
        copy_rows(
            old,
            stream,
            header.points,
            replaced={columns[name]: found for name, found in texts.items() if name in columns},
            added=[texts[f.name] for f in new.fields if f.name not in columns],
        )
