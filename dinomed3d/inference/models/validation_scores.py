"""Scores of nnU-Net's own validation, as means without names of cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from dinomed3d.inference.models.model_files import LARGEST_TEXT, ModelFiles
from dinomed3d.inference.models.validate_plans import parse
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.safe_zip import read_member

SUMMARY = "validation/summary.json"


def validation_scores(
    files: ModelFiles, folds: Sequence[str], labels: Mapping[str, int | list[int]]
) -> dict[str, Any] | None:
    """Mean Dice of each label over the cases that the folds were validated on.

    Args:
        files: of a model of nnU-Net.
        folds: that are packaged; `all` is left out, which was validated on the cases it was trained on.
        labels: name -> value, or values of a region.

    Returns:
        `folds`, number of `cases`, and `dice` (name -> mean over those of them that have the label in the reference
        or the prediction); None where no fold was validated, or no case has a label.

    Raises:
        UserError: a summary that is not one of nnU-Net.
    """
    found: dict[str, list[float]] = {name: [] for name in labels}
    used, cases = [], 0
    for fold in folds:
        name = f"fold_{fold}/{SUMMARY}"
        content = None if fold == "all" else _read(files, name)
        if content is None:
            continue
        where = f"model {files.path}: {name}"
        number, scores = _scores(parse(content, where), labels, where)
        used.append(fold)
        cases += number
        for label, values in scores.items():
            found[label] += values
    dice = {label: round(fmean(values), 4) for label, values in found.items() if values}
    return {"folds": used, "cases": cases, "dice": dice} if dice else None


def _read(files: ModelFiles, name: str) -> bytes | None:
    if files.members is not None:
        member = files.members.get(name)
        return None if member is None else read_member(files.path, member, max_bytes=LARGEST_TEXT)
    path = files.path / name
    return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST_TEXT else None


def _scores(
    summary: Mapping[str, Any], labels: Mapping[str, int | list[int]], where: str
) -> tuple[int, dict[str, list[float]]]:
    """Number of cases, and Dice of each label in those that have one: it is NaN where the label is nowhere."""
    try:
        metrics = [case["metrics"] for case in summary["metric_per_case"]]
        found = {}
        for name, value in labels.items():
            key = str(tuple(value)) if isinstance(value, list) else str(value)
            dice = [scores[key]["Dice"] for scores in metrics if key in scores]
            found[name] = [
                float(one) for one in dice if isinstance(one, int | float) and math.isfinite(one)
            ]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{where}: is not a summary of nnU-Net's validation; validate again (nnUNetv2_train ... --val), or "
            "delete it"
        ) from error
    return len(metrics), found
