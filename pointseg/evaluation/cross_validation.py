"""Finished tests of the folds of a cross-validation as one test: counts are summed, not scores averaged."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from dinomed3d.runtime.errors import UserError
from pointseg.datasets.dataset import ClassList, distinct_colors
from pointseg.evaluation.evaluate import Score, point_metrics
from pointseg.evaluation.visibility_breakdown import sum_by_sight
from pointseg.metrics import Confusion
from pointseg.pictures.confusion import write_confusion

OF_ONE_FOLD = ("checkpoint_sha256", "splits")
"""Entries of a test's protocol that differ from fold to fold, as they should."""
BY_SIGHT = "test_point_miou_by_sight"


def merge_results(
    folders: Sequence[Path], out: Path, *, log: Callable[[str], None] = print
) -> Score:
    """Add the confusion matrices of finished tests, and write what a test of all their scenes would have found.

    ``out`` gets ``metrics.json`` (with the score of each fold under ``folds``, and in what its way differs
    from the others'), ``confusion.png`` and ``.csv``. S3DIS is scored so: each of its six areas by a model
    that was trained on the five others.

    Args:
        folders: results of ``pointseg-test``, two or more.
        out: folder to be written; not one of them.
        log: told where the tests were made in different ways.

    Raises:
        UserError: a folder without a finished, scored test; other classes; one split in two of them.
    """
    if len(folders) < 2:
        raise UserError(f"--sum: takes the folders of two tests or more, got {len(folders)}")
    if out.resolve() in [folder.resolve() for folder in folders]:
        raise UserError(f"--out {out}: is one of the tests that are summed; choose another folder")
    tests = [_read(folder) for folder in folders]
    matrices = [_matrix(folder) for folder in folders]
    names = matrices[0][0]
    for folder, (others, _) in zip(folders, matrices, strict=True):
        if others != names:
            raise UserError(
                f"--sum: {folder} has {len(others)} classes ({_some(others)}), {folders[0]} has "
                f"{len(names)} ({_some(names)}); only tests on the same classes can be added"
            )
    protocol, differing = _protocol(folders, tests, log)
    confusion = Confusion(len(names))
    for _, matrix in matrices:
        confusion.merge(Confusion.of(matrix))
    groups = tests[0].get("groups", {})
    classes = ClassList(
        names=names,
        colors=distinct_colors(len(names)),
        groups={name: tuple(rows) for name, rows in groups.items()},
    )
    metrics = {**point_metrics(confusion, classes), "groups": groups}
    for total in ("scenes", "predicted_points", "seconds"):
        metrics[total] = sum(test[total] for test in tests)
    metrics["protocol"] = protocol
    both = zip(folders, tests, strict=True)
    metrics["folds"] = [_fold(folder, test, differing) for folder, test in both]
    by_sight = _by_sight(folders, tests, names, log)
    if by_sight is not None:
        metrics[BY_SIGHT] = by_sight
    out.mkdir(parents=True, exist_ok=True)
    write_confusion(confusion.matrix, names, out / "confusion.png", out / "confusion.csv")
    with new_file(out / "metrics.json") as part:
        part.write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    return Score(metrics=metrics, confusion=confusion)


def _read(folder: Path) -> dict[str, Any]:
    """``metrics.json`` of a finished test."""
    path = folder / "metrics.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        _ = found["protocol"]["splits"], found["protocol"]["dataset"], found["checkpoint"]
        _ = found["scenes"], found["predicted_points"], found["seconds"], found["test_point_miou"]
    except FileNotFoundError as error:
        raise UserError(
            f"--sum: {path} is not there; name folders in which pointseg-test has finished"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"--sum: {path} is not what pointseg-test writes; test again") from error
    return dict(found)


def _matrix(folder: Path) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names, and (K, K) counts, of ``confusion.csv``."""
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
            f"--sum: {path} is not there: the test has no labels, or has not finished"
        ) from error
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"--sum: {path} is not what pointseg-test writes; test again") from error
    return names, counts


def _protocol(
    folders: Sequence[Path], tests: Sequence[dict[str, Any]], log: Callable[[str], None]
) -> tuple[dict[str, Any], list[str]]:
    """How all of them were made, and entries that are not the same for all or not in all."""
    held: dict[tuple[str, str], Path] = {}
    for folder, test in zip(folders, tests, strict=True):
        dataset = test["protocol"]["dataset"]
        for split in test["protocol"]["splits"]:
            if (dataset, split) in held:
                raise UserError(
                    f"--sum: {held[dataset, split]} and {folder} both tested {split} of {dataset}; its "
                    "points would count twice"
                )
            held[dataset, split] = folder
    protocols = [test["protocol"] for test in tests]
    first = protocols[0]
    keys = dict.fromkeys(key for each in protocols for key in each if key not in OF_ONE_FOLD)
    same = [
        key
        for key in keys
        if all(key in each and each[key] == first.get(key) for each in protocols)
    ]
    differing = [key for key in keys if key not in same]
    if differing:
        log(f"the tests differ in {', '.join(differing)}")
    shared = {key: first[key] for key in same}
    if differing:  # so that it is not read as that of a test without them
        shared["differing"] = differing
    return {**shared, "splits": [split for _, split in held]}, differing


def _by_sight(
    folders: Sequence[Path],
    tests: Sequence[dict[str, Any]],
    names: Sequence[str],
    log: Callable[[str], None],
) -> dict[str, Any] | None:
    """Scores of seen and of unseen points, if all tests have them."""
    lacking = [
        folder for folder, test in zip(folders, tests, strict=True) if test.get(BY_SIGHT) is None
    ]
    if len(lacking) == len(folders):
        return None
    found = None if lacking else sum_by_sight([test[BY_SIGHT] for test in tests], names)
    if found is None:
        which = ", ".join(map(str, lacking or folders))
        log(
            f"no scores of seen and unseen points: their counts are not in {which}; test again with images "
            "or --by-sight (labels are kept)"
        )
    return found


def _fold(folder: Path, test: dict[str, Any], differing: Sequence[str]) -> dict[str, Any]:
    found = {
        "folder": str(folder),
        "checkpoint": test["checkpoint"],
        "splits": test["protocol"]["splits"],
        "test_point_miou": test["test_point_miou"],
    }
    if differing:
        found["differing"] = {key: test["protocol"].get(key) for key in differing}
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
