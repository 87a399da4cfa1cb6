"""Merge the tests of the folds of a cross-validation: counts are summed, not scores averaged."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.classes import ClassList, distinct_colors
from pointseg.evaluation.point_metrics import BY_VISIBILITY, point_metrics
from pointseg.evaluation.saved_labels import write_json
from pointseg.evaluation.spec import EvaluationResult
from pointseg.evaluation.visibility_breakdown import merge_visibility_scores
from pointseg.metrics import Confusion
from pointseg.pictures.confusion import write_confusion

FOLD_KEYS = ("checkpoint_sha256", "splits")
"""Entries of a test's protocol that differ between folds by design."""


@dataclass(frozen=True)
class _Fold:
    """A finished test."""

    folder: Path
    metrics: dict[str, Any]
    names: tuple[str, ...]
    matrix: NDArray[np.int64]

    @property
    def protocol(self) -> dict[str, Any]:
        return dict(self.metrics["protocol"])


def merge_results(
    folders: Sequence[Path], out: Path, *, log: Callable[[str], None] = print
) -> EvaluationResult:
    """Sum the confusion matrices of finished tests, and write the result like one test of all their scenes.

    ``out`` gets ``metrics.json`` (with the score of each fold under ``folds``, and where its protocol differs
    from the others'), ``confusion.png`` and ``.csv``. This is how S3DIS is scored: each of its six areas by a
    model that was trained on the other five.

    Args:
        folders: results of ``pointseg-test``, two or more.
        out: folder to write; not one of them.
        log: receives notes about different protocols.

    Raises:
        UserError: a folder without a finished, scored test; other classes; one split in two of them.
    """
    if len(folders) < 2:
        raise UserError(f"--merge: needs the folders of two tests or more, got {len(folders)}")
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise UserError(f"--out {out}: is one of the merged tests; choose another folder")
    folds = [_Fold(folder, _metrics(folder), *_matrix(folder)) for folder in folders]
    first = folds[0]
    for fold in folds:
        if fold.names != first.names:
            raise UserError(
                f"--merge: {fold.folder} has the classes {', '.join(fold.names):.80}, {first.folder} has "
                f"{', '.join(first.names):.80}; only tests with the same classes can be merged"
            )
    splits = _splits(folds)
    shared, differing = _common_protocol(folds)
    if differing:
        log(f"the tests differ in {', '.join(differing)}")
        shared["differing"] = differing  # so that nobody takes it for a single protocol
    confusion = Confusion(len(first.names))
    for fold in folds:
        confusion.merge(Confusion.of(fold.matrix))
    groups = {name: tuple(rows) for name, rows in first.metrics.get("groups", {}).items()}
    colors = distinct_colors(len(first.names))
    metrics = point_metrics(confusion, ClassList(names=first.names, colors=colors, groups=groups))
    for total in ("scenes", "predicted_points", "seconds"):
        metrics[total] = sum(fold.metrics[total] for fold in folds)
    metrics["protocol"] = {**shared, "splits": splits}
    metrics["folds"] = [_summary(fold, differing) for fold in folds]
    by_visibility = _by_visibility(folds, log)
    if by_visibility is not None:
        metrics[BY_VISIBILITY] = by_visibility
    write_json(out / "metrics.json", metrics)
    write_confusion(confusion.matrix, first.names, out / "confusion.png", out / "confusion.csv")
    return EvaluationResult(metrics=metrics, confusion=confusion)


def _metrics(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a finished test."""
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _ = found["protocol"]["splits"], found["protocol"]["dataset"], found["checkpoint"]
        _ = found["scenes"], found["predicted_points"], found["seconds"], found["test_point_miou"]
    except FileNotFoundError as error:
        raise UserError(
            f"--merge: {path} does not exist; name folders of finished tests"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"--merge: {path} is not a file of pointseg-test; run the test again"
        ) from error
    return dict(found)


def _matrix(folder: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Class names, and (K, K) counts, of ``confusion.csv``."""
    path = folder / "confusion.csv"
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream))
        names = tuple(row[0] for row in rows[1:])
        counts = np.array([row[2 : 2 + len(names)] for row in rows[1:]], np.int64)
        if tuple(rows[0][2 : 2 + len(names)]) != names or counts.shape != (len(names),) * 2:
            raise ValueError
    except FileNotFoundError as error:
        raise UserError(
            f"--merge: {path} does not exist: the test has no labels, or is not finished"
        ) from error
    except (OSError, ValueError, IndexError) as error:
        raise UserError(
            f"--merge: {path} is not a file of pointseg-test; run the test again"
        ) from error
    return names, counts


def _splits(folds: Sequence[_Fold]) -> list[str]:
    """The tested splits of all folds, each of which must be tested once."""
    tested: dict[tuple[str, str], Path] = {}
    for fold in folds:
        dataset = fold.protocol["dataset"]
        for split in fold.protocol["splits"]:
            if (dataset, split) in tested:
                raise UserError(
                    f"--merge: {tested[dataset, split]} and {fold.folder} both tested {split} of {dataset}, whose "
                    "points would count twice"
                )
            tested[dataset, split] = fold.folder
    return [split for _, split in tested]


def _common_protocol(folds: Sequence[_Fold]) -> tuple[dict[str, Any], list[str]]:
    """The entries that all protocols share, and the names of the others."""
    protocols = [fold.protocol for fold in folds]
    keys = dict.fromkeys(key for each in protocols for key in each if key not in FOLD_KEYS)
    first = protocols[0]
    shared = {
        key: first[key]
        for key in keys
        if all(key in each and each[key] == first.get(key) for each in protocols)
    }
    return shared, [key for key in keys if key not in shared]


def _by_visibility(folds: Sequence[_Fold], log: Callable[[str], None]) -> dict[str, Any] | None:
    """Scores of visible and other points, if all tests have them."""
    scores = [fold.metrics.get(BY_VISIBILITY) for fold in folds]
    if all(each is None for each in scores):
        return None
    known = [each for each in scores if each is not None]
    found = merge_visibility_scores(known, folds[0].names) if len(known) == len(folds) else None
    if found is None:
        lacking = [fold.folder for fold, each in zip(folds, scores, strict=True) if each is None]
        which = ", ".join(str(folder) for folder in lacking or [fold.folder for fold in folds])
        log(
            f"no scores by visibility: counts are missing in {which}; test again with images or --by-visibility "
            "(labels are kept)"
        )
    return found


def _summary(fold: _Fold, differing: Sequence[str]) -> dict[str, Any]:
    found = {
        "folder": str(fold.folder),
        "checkpoint": fold.metrics["checkpoint"],
        "splits": fold.protocol["splits"],
        "test_point_miou": fold.metrics["test_point_miou"],
    }
    if differing:
        found["differing"] = {key: fold.protocol.get(key) for key in differing}
    return found
