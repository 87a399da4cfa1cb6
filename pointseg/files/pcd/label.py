"""PCD files copied with a class for each point; form and viewpoint stay, organised clouds stay organised."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.files.labelling.labels import Labels
from pointseg.files.labelling.legend import legend_lines
from pointseg.files.pcd.compression import compressed
from pointseg.files.pcd.header import Field, Header, extended, read_header
from pointseg.files.pcd.read import file_row_pieces, read_file_rows
from pointseg.files.table.errors import CloudFileError
from pointseg.files.table.pieces import PIECE
from pointseg.files.table.rows import with_columns
from pointseg.files.table.text_rows import copy_rows


def check_pcd(source: Path, labels: Labels) -> None:
    """Refuse a file whose field of classes, or another that labels would replace, has several values per point.

    Raises:
        CloudFileError: such a file.
    """
    _new_fields(read_header(source), labels)


def _new_fields(header: Header, labels: Labels) -> list[str]:
    """The names of the classes, and of what else labels add."""
    names = [labels.field_in(header.path, header.keys), *labels.added_names(header.keys)]
    if several := [f.name for f in header.fields if f.name in names and f.count > 1]:
        raise CloudFileError(
            header.path, f"field '{several[0]}' has several values per point, not one"
        )
    return names


def label_pcd(source: Path, target: Path, labels: Labels) -> None:
    """Copy a PCD file with a class for each point; its form, viewpoint and all else stay as they are."""
    header = read_header(source)
    labels = labels.checked(source, header.points)
    kinds = ("i4", *labels.added.values())
    names = _new_fields(header, labels)
    added = [Field(*each) for each in zip(names, kinds, strict=True)]
    if labels.colors is not None:
        added.append(next((f for f in header.fields if f.is_packed), Field("rgb", "u4")))
    new = extended(header, added, legend_lines(labels, names[0], header.keys))
    with new_file(target) as part, open(source, "rb") as old, open(part, "wb") as stream:
        stream.write(b"".join(new.lines))
        if header.form == "binary_compressed":
            values = _added_values(added, labels, 0, labels.whole)
            stream.write(
                compressed(source, with_columns(read_file_rows(header), new.dtype, values))
            )
            return
        old.seek(header.size)
        starts = np.cumsum([0, *(f.count for f in header.fields)]).tolist()
        places = dict(zip(header.keys, starts, strict=False))
        rows = file_row_pieces(header, old, PIECE) if header.form == "binary" else iter(())
        for first, segment in labels.pieces():
            values = _added_values(added, labels, first, segment)
            if header.form == "binary":
                stream.write(with_columns(next(rows), new.dtype, values).tobytes())
            elif header.points:
                copy_rows(old, stream, places, values)


def _added_values(
    added: Sequence[Field], labels: Labels, first: int, segment: NDArray[np.int32]
) -> dict[str, NDArray[Any]]:
    """The classes of points from ``first`` on, and what else labels have; colours packed as their field wants them."""
    columns: list[NDArray[Any]] = [segment, *labels.added_values(first, first + len(segment))]
    values: dict[str, NDArray[Any]] = {
        field.name: column for field, column in zip(added, columns, strict=False)
    }
    for color in added[len(columns) :]:
        red, green, blue = labels.paint(segment).astype("u4").T
        opaque = np.uint32(0xFF000000 if color.name == "rgba" and color.kind != "f4" else 0)
        packed = red << np.uint32(16) | green << np.uint32(8) | blue | opaque
        values[color.name] = packed.view(color.kind)
    return values
