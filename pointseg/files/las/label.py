"""LAS files copied with a class for each point."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import laspy
import numpy as np

from pointseg.files.columns.names import CLASS_FIELD, HEIGHT, SPARE_CLASS_FIELD
from pointseg.files.labelling.certainty import MEASURES
from pointseg.files.labelling.labels import CLASSIFICATION, OWN, UNCLASSIFIED, Labels
from pointseg.files.las.extra_dimensions import set_extra, set_measures
from pointseg.files.las.header import read_header
from pointseg.files.las.laspy_errors import errors_of
from pointseg.files.las.legend import legend_of, name_records
from pointseg.files.las.read import CHUNK, opened, point_pieces
from pointseg.files.las.rewrite import copy_changed, rewrite, with_color
from pointseg.files.las.write import FULL_COLOR
from pointseg.files.table.errors import CloudFileError

FORMER = "input_classification"
HEIGHT_TEXT, FORMER_TEXT = "metres above the ground", "classification of the input"
"""Descriptions of dimensions, of 32 bytes at most."""


def label_las(source: Path, target: Path, labels: Labels) -> None:
    """Copy a LAS or LAZ file with a class for each point; cloud-optimised LAZ (COPC) becomes plain LAZ.

    The classes become an extra dimension ``pointseg_class``: LAS defines the numbers in
    ``classification`` (2 is ground), and those are not the classes of a trained model. With the field
    "classification" they are written there; with codes, these are written there, too, and what was there stays in
    ``input_classification``, unless it was all unclassified. With colours, a point format without becomes that with.
    What else labels have stands in ``pointseg_confidence``, ``pointseg_entropy``, ``pointseg_margin`` and
    ``height_above_ground``. Records name the classes and their codes, see ``legend``.
    """
    with opened(source) as reader:
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
            las = with_color(las)
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
    rewrite(source, target, change, "could not be labelled", records)


def check_las(source: Path, labels: Labels) -> None:
    """Refuse a file of which ``label_las`` could not write a copy, by writing one of its first point alone.

    Args:
        source: the file.
        labels: as ``label_las`` gets them, but for the values of points.

    Raises:
        CloudFileError: such a file.
    """

    def change(las: laspy.LasData, start: int) -> laspy.LasData:
        las = las if labels.colors is None else with_color(las)
        set_extra(las, SPARE_CLASS_FIELD, np.zeros(len(las.points), np.int32))
        if labels.certainty is not None:
            none = np.zeros((len(las.points), len(MEASURES)), np.uint16)
            set_measures(las, [OWN + measure.name for measure in MEASURES], none)
        if labels.heights is not None:
            set_extra(las, OWN + HEIGHT, np.zeros(len(las.points), np.float32))
        return las

    with opened(source) as reader:
        _check_range(source, reader.header.point_format.id, None, labels.codes or ())
        with errors_of(source, "is damaged or cut off"):
            first = [reader.read_points(1)]
        copy_changed(
            source, reader, io.BytesIO(), first, change, "a copy cannot be written", packed=False
        )


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
    with opened(path) as reader:
        pieces = point_pieces(path, reader, CHUNK)
        return any(bool((np.array(p.classification) > UNCLASSIFIED).any()) for p in pieces)
