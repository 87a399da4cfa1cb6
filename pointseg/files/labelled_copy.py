"""Copies of clouds' files with a class for each point; everything else in them stays as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import WriteError
from pointseg.files.formats import BIN, FORMATS, result_suffix, source_suffix, target_suffix
from pointseg.files.labelling.certainty import MEASURES, SavedCertainty
from pointseg.files.labelling.labels import Labels, SavedLabels
from pointseg.files.labelling.saved_rows import SavedRows
from pointseg.files.table.errors import CloudFileError


def check_labelled(
    source: Path,
    target: Path,
    *,
    colored: bool = False,
    codes: tuple[int, ...] | None = None,
    measured: bool = False,
    heights: bool = False,
) -> None:
    """Refuse what ``write_labelled`` could not write, before classes are found at some expense.

    Args:
        source: the file that is read.
        target: the file to be.
        colored: whether the points get colours of classes.
        codes: as for ``write_labelled``.
        measured: whether the points get fields that say how sure their classes are.
        heights: whether they get a field for their height above the ground.

    Raises:
        CloudFileError: ``source`` is no cloud; ``target`` is of another type; colours, codes or fields, which its
            type cannot hold; a header that could be read, but not written.
    """
    source_suffix(source)
    suffix = result_suffix(source)
    wanted = target_suffix(target) if suffix else ""
    same_type = FORMATS[suffix] is FORMATS[wanted] and FORMATS[suffix] is not BIN
    if suffix != wanted and not same_type:
        kind = f"end in {suffix}" if suffix else "be a folder"
        raise CloudFileError(target, f"must {kind}, for results of {source.name}")
    like = Labels(
        np.empty(0, np.int32),
        colors=np.empty((0, 3), np.uint8) if colored else None,
        codes=codes,
        certainty=np.empty((0, len(MEASURES)), np.uint16) if measured else None,
        heights=np.empty(0, np.float32) if heights else None,
    )
    FORMATS[suffix].check(source, like)


def write_labelled(
    source: Path,
    target: Path,
    segment: NDArray[Any] | SavedLabels,
    *,
    colors: NDArray[np.uint8] | None = None,
    field: str | None = None,
    columns: Sequence[str] | None = None,
    codes: tuple[int, ...] | None = None,
    certainty: NDArray[np.uint16] | SavedCertainty | None = None,
    legend: Sequence[str] = (),
    heights: NDArray[np.float32] | SavedRows | None = None,
    keeps_former: bool = True,
) -> None:
    """Copy a cloud's file with a class for each point; every other field and the georeference stay.

    The classes stand in a field ``class`` (``pointseg_class`` if the file has a ``class`` already, and
    in LAS, whose ``classification`` stays as it is), those of ``.bin`` scans in a ``.label`` file next to
    the copy. The target appears whole or not at all.

    Args:
        source: the file that was read, or a folder of ``.npy`` files.
        target: the file to be, of the same type.
        segment: (N,) integers, a class for each point of the file, -1 where there is none.
        colors: (K, 3) colours of the classes; given, they replace the colours of the points.
        field: another name for the field of the classes.
        columns: as for ``read_cloud``; text that had no names gets these.
        codes: K ASPRS codes of the classes: they are written into ``classification`` as well, in LAS the dimension,
            whose former values stay in ``input_classification``, in others a field, named as the classes are.
        certainty: (N, 3) how sure the classes are, as ``certainty.MEASURES``, in steps of 1 / ``STEPS``: they become
            fields ``confidence``, ``entropy`` and ``margin``, named as the classes are where these are taken.
        legend: names of the K classes: records of LAS and comments of PLY and PCD hold them, the description of the
            field in LAS as many as it has room for.
        heights: (N,) metres above the ground, for a field ``height_above_ground``, named as the classes are.
        keeps_former: whether former values of ``classification`` stay at all.

    Raises:
        CloudFileError: as ``read_cloud`` and ``write_cloud``; ``segment`` does not fit the file;
            ``target`` is of another type.
        WriteError: the system refuses to write.
    """
    check_labelled(
        source,
        target,
        colored=colors is not None,
        codes=codes,
        measured=certainty is not None,
        heights=heights is not None,
    )
    form = FORMATS[source_suffix(source)]
    labels = Labels(segment, colors, field, codes, certainty, tuple(legend), heights, keeps_former)
    try:
        if form.takes_names:
            form.label(source, target, labels, columns)
        else:
            form.label(source, target, labels)
    except WriteError:
        raise
    except OSError as error:
        raise CloudFileError(source, f"could not be read: {error.strerror or error}") from error
