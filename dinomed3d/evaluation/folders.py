"""Predicted masks against reference masks: pairs of files, scores per case and label, and a summary."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.evaluation.metrics import Scores, score
from dinomed3d.inference.case import Case, Scan
from dinomed3d.inference.cohort.outputs.result_files import case_of_extra, record_path
from dinomed3d.inference.io.grid import Volume, corner_distance_mm
from dinomed3d.inference.io.image import ENDINGS, read_case
from dinomed3d.runtime.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

SAME_GRID_VOXELS = 0.01
"""Share of the smallest voxel side by which two grids may differ and still count as one."""
METRICS = ("dice", "hd95_mm", "surface_dice")
NUMBERS = (*METRICS, "reference_ml", "prediction_ml")


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The labels to score, as a dataset.json names them."""

    values: Mapping[str, tuple[int, ...]]
    """Name -> the values it covers: one, or several of a region."""
    ignore: int | None = None
    """Voxels that have this value in the reference are left out."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The result of comparing two folders."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    """A row for each case and label: case, label, scores and volumes in ml."""
    problems: dict[str, str] = field(default_factory=dict)
    """Case -> why it was not evaluated."""
    evaluated: list[str] = field(default_factory=list)
    """Cases that were compared, also those in which neither mask has anything."""
    left_out: list[str] = field(default_factory=list)
    """Other files of a prediction next to its masks: single labels, original slices, earlier versions of a mask."""

    def per_case(self) -> DataFrame:
        """All rows as a table; a label that a case has nowhere has NaN there."""
        from pandas import DataFrame

        # names as Python has them: pandas' own texts cannot hold a file's name that is not UTF-8
        table = DataFrame(self.rows, columns=["case", "label", *NUMBERS], dtype=object)
        return table.astype(dict.fromkeys(NUMBERS, float))

    def per_label(self) -> DataFrame:
        """Means over the cases that count for a label, how many these are, and last the mean over labels."""
        from pandas import concat

        table = self.per_case()
        grouped = table.groupby("label", sort=False)
        means = grouped[list(METRICS)].mean()
        means.insert(0, "cases", grouped["dice"].count())
        if len(means) > 1:  # appended, because a label may be called like this row
            means = concat([means, means[list(METRICS)].mean().to_frame("mean").T])
        return means


def read_labels(path: Path) -> Labels:
    """The labels of nnU-Net's dataset.json.

    Args:
        path: the file; values are numbers, or lists of numbers for regions.

    Raises:
        UserError: no such file, or one without usable labels.
    """
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["labels"].items()
        values = {
            str(name): tuple(int(v) for v in (value if isinstance(value, list) else [value]))
            for name, value in entries
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--labels {path}: must be a dataset.json of nnU-Net with 'labels' "
            f"({type(error).__name__}: {error})"
        ) from error
    ignore = values.pop("ignore", None)
    foreground = {n: v for n, v in values.items() if n != "background" and v != (0,)}
    if not foreground:
        raise UserError(f"--labels {path}: names no label except the background")
    return Labels(values=foreground, ignore=None if ignore is None else ignore[0])


def evaluate(
    reference: Path,
    prediction: Path,
    *,
    labels: Labels | None = None,
    tolerance_mm: float = 1.0,
    progress: Callable[[str], None] = lambda case: None,
) -> Evaluation:
    """Score all cases of two folders; what is wrong with one case does not stop the others.

    Args:
        reference: folder of reference masks, or one mask.
        prediction: folder of predicted masks of the same names, or one mask.
        labels: which labels to score; None: every value above 0 that a case has in either mask.
        tolerance_mm: of surface Dice.
        progress: called with each case before it is scored.

    Raises:
        UserError: a folder is missing or holds no masks, or the tolerance is negative.
    """
    if not tolerance_mm >= 0:
        raise UserError(f"--tolerance must be at least 0 mm, got {tolerance_mm}")
    if reference.is_file() and prediction.is_file():
        references, predictions = {reference.name: [reference]}, {reference.name: [prediction]}
    else:
        references, predictions = _masks(reference, "REFERENCE"), _masks(prediction, "PREDICTION")
    result = Evaluation(
        left_out=_take_out_extras(references, reference) + _take_out_extras(predictions, prediction)
    )
    for case in sorted(references.keys() | predictions.keys()):
        progress(case)
        try:
            pair = [_only(files.get(case), where) for files, where in (
                (references, reference), (predictions, prediction))]  # fmt: skip
            result.rows.extend(_rows(case, *pair, labels=labels, tolerance_mm=tolerance_mm))
            result.evaluated.append(case)
        except (UserError, OSError) as error:
            result.problems[case] = " ".join(str(error).split())
    return result


def _masks(folder: Path, name: str) -> dict[str, list[Path]]:
    """Case -> its files, for all masks below a folder."""
    if not folder.is_dir():
        raise UserError(f"{name} {folder}: must be a folder of masks (or both must be files)")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        ending = next((e for e in ENDINGS if path.name.endswith(e)), None)
        if ending is not None and not path.name.startswith(".") and path.is_file():
            case = path.relative_to(folder).as_posix().removesuffix(ending)
            found.setdefault(case, []).append(path)
    if not found:
        raise UserError(f"{name} {folder}: holds no masks ({', '.join(ENDINGS)})")
    return found


def _take_out_extras(masks: dict[str, list[Path]], folder: Path) -> list[str]:
    """Remove a prediction's other files from the masks, and return their names; its cases have records."""
    extras = []
    for name in list(masks):
        case = case_of_extra(name)
        if case is not None and record_path(folder, case).is_file():
            extras += [str(path) for path in masks.pop(name)]
    return extras


def _only(files: list[Path] | None, folder: Path) -> Path:
    if not files:
        raise UserError(f"has no mask in {folder}")
    if len(files) > 1:
        raise UserError(f"has {len(files)} masks: {', '.join(map(str, files))}; keep one")
    return files[0]


def _rows(
    case: str, reference: Path, prediction: Path, *, labels: Labels | None, tolerance_mm: float
) -> Iterator[dict[str, Any]]:
    """The scores of one case, a row for each label.

    Raises:
        UserError: a mask cannot be read or holds other values, or the two lie on different grids.
    """
    one, other = _read(reference), _read(prediction)
    _check_grids(one, other, reference, prediction)
    truth, found = _whole(one, reference), _whole(other, prediction)
    present = sorted((set(np.unique(truth)) | set(np.unique(found))) - {0})
    if labels is None:
        labels = Labels(values={str(value): (int(value),) for value in present})
    known = {value for values in labels.values.values() for value in values} | {labels.ignore}
    if strange := [int(value) for value in present if value not in known]:
        raise UserError(
            f"{reference} or {prediction}: holds values that --labels does not name: {strange}"
        )
    counted = np.ones(truth.shape, bool) if labels.ignore is None else truth != labels.ignore
    for name, values in labels.values.items():
        masks = [np.isin(mask, values) & counted for mask in (truth, found)]
        scores: Scores = score(
            masks[0], masks[1], spacing_mm=one.grid.spacing_mm, tolerance_mm=tolerance_mm
        )
        volumes = [round(float(mask.sum() * one.grid.voxel_ml), 6) for mask in masks]
        yield {
            "case": case,
            "label": name,
            **scores._asdict(),
            "reference_ml": volumes[0],
            "prediction_ml": volumes[1],
        }


def _read(path: Path) -> Volume:
    ending = next(e for e in (*ENDINGS, path.suffix) if path.name.endswith(e))
    return read_case(Case(id=path.name, scans=(Scan(files=(str(path),), ending=ending),)), ["mask"])


def _check_grids(one: Volume, other: Volume, reference: Path, prediction: Path) -> None:
    if one.grid.shape_zyx != other.grid.shape_zyx:
        raise UserError(
            f"{prediction}: must have the shape (z, y, x) of {reference}, {one.grid.shape_zyx}, "
            f"it has {other.grid.shape_zyx}; resample it"
        )
    apart_mm = corner_distance_mm(one.grid, other.grid)
    if apart_mm > SAME_GRID_VOXELS * min(one.grid.spacing_mm):
        raise UserError(
            f"{prediction}: must lie on the grid of {reference}, it is up to {apart_mm:.3g} mm off; resample it"
        )


def _whole(volume: Volume, path: Path) -> NDArray[np.int64]:
    values = volume.channels[0]
    whole = np.rint(values).astype(np.int64)
    if not np.array_equal(whole, values):
        raise UserError(f"{path}: must hold whole numbers (labels), is it an image?")
    return whole
