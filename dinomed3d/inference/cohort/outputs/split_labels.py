"""One binary mask for each label of a case, in a folder next to its mask."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.outputs.result_files import LABELS_FOLDER
from dinomed3d.inference.discovery.case_ids import safe_name
from dinomed3d.inference.io.image import Grid, write_mask
from dinomed3d.inference.models.model import Model


def split_files(case: str, labels: Iterable[str], ending: str) -> dict[str, str]:
    """Label -> path of its file below the output folder, a name that every file system can hold.

    Names that differ in capitals alone, or are equal without what file systems forbid, get a number.
    """
    files: dict[str, str] = {}
    used: set[str] = set()
    for label in labels:
        stem, number = safe_name(label), 1
        name = stem
        while (key := unicodedata.normalize("NFC", name).casefold()) in used:
            number += 1
            name = f"{stem}_{number}"
        used.add(key)
        files[label] = f"{case}{LABELS_FOLDER}/{name}{ending}"
    return files


def write_split(
    mask: NDArray[Any], grid: Grid, case: str, out: Path, model: Model, ours: Collection[str] = ()
) -> dict[str, str]:
    """Write a mask of 0 and 1 for each label and region, also for those that were not found.

    Args:
        mask: (Z, Y, X), unsigned.
        grid: of the mask.
        case: its id.
        out: the output folder.
        model: that predicted it.
        ours: files that an earlier run has written, which may be replaced.

    Returns:
        As `split_files`.

    Raises:
        CaseError: a file of others has the name of one, or the format cannot store the geometry.
        OSError: they cannot be written.
    """
    files = split_files(case, model.mask_values, grid.ending)
    foreign = [name for name in files.values() if name not in ours and (out / name).exists()]
    if foreign:
        raise CaseError(f"{foreign[0]} exists already and is not from a run of ours; move it away")
    for label, values in model.mask_values.items():
        write_mask(_binary(mask, values), grid, out / files[label], labels={label: 1})
    return files


def _binary(mask: NDArray[Any], values: Sequence[int]) -> NDArray[np.uint8]:
    """Where a mask has one of these values; plane by plane, since indices take eight bytes."""
    table = np.zeros(1 + max(int(mask.max()), *values), np.uint8)
    table[list(values)] = 1
    binary = np.empty(mask.shape, np.uint8)
    for target, plane in zip(binary, mask, strict=True):
        target[:] = table[plane]
    return binary
