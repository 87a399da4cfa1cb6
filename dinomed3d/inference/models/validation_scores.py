"""Scores of nnU-Net's own validation, as means without names of cases."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
        `folds`, `cases` and `dice` (name -> mean); None where no fold was validated.

    Raises:
        UserError: a summary that is not one of nnU-Net.
    """
    sums: dict[str, float] = {}
    counts: dict[str, int] = {}
    used, cases = [], 0
    for fold in folds:
        name = f"fold_{fold}/{SUMMARY}"
        content = None if fold == "all" else _read(files, name)
        if content is None:
            continue
        where = f"model {files.path}: {name}"
        number, means = _means(parse(content, where), labels, where)
        used.append(fold)
        cases += number
        for label, mean in means.items():
            sums[label] = sums.get(label, 0.0) + mean * number
            counts[label] = counts.get(label, 0) + number
    if not cases:
        return None
    dice = {label: round(sums[label] / counts[label], 4) for label in labels if label in sums}
    return {"folds": used, "cases": cases, "dice": dice}


def _read(files: ModelFiles, name: str) -> bytes | None:
    if files.members is not None:
        member = files.members.get(name)
        return None if member is None else read_member(files.path, member, max_bytes=LARGEST_TEXT)
    path = files.path / name
    return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST_TEXT else None


def _means(
    summary: Mapping[str, Any], labels: Mapping[str, int | list[int]], where: str
) -> tuple[int, dict[str, float]]:
    """Number of cases, and Dice of each label that has one."""
    try:
        number, mean = len(summary["metric_per_case"]), summary["mean"]
        found = {}
        for name, value in labels.items():
            key = str(tuple(value)) if isinstance(value, list) else str(value)
            dice = mean[key]["Dice"] if key in mean else None
            if isinstance(dice, int | float) and math.isfinite(dice):
                found[name] = float(dice)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{where}: is not a summary of nnU-Net's validation; validate again (nnUNetv2_train ... --val), or "
            "delete it"
        ) from error
    return number, found
