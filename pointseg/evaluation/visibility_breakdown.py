"""Scores of the points that some view shows, and of those that none does, with the counts they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pointseg.metrics import Confusion


def scores_by_sight(found: Mapping[str, Confusion], names: Sequence[str]) -> dict[str, Any]:
    """What ``metrics.json`` keeps of both groups of points.

    Args:
        found: seen and unseen: what was counted in each.
        names: of the K classes.

    Returns:
        For each group ``points``, ``miou_present`` and ``accuracy`` (None without points), and
        ``confusion``: how many points of one class were taken for another, by their names, zeros left out.
    """
    return {group: _scores(confusion, names) for group, confusion in found.items()}


def sum_by_sight(tests: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any] | None:
    """The scores of several tests as those of one: counts are added.

    Args:
        tests: what ``scores_by_sight`` made of each.
        names: of the K classes.

    Returns:
        What it would have made of all; None where the counts of one are not there or do not fit.
    """
    found: dict[str, Confusion] = {}
    try:
        for test in tests:
            for group, kept in test.items():
                counted = _counted(kept["confusion"], names)
                found.setdefault(group, Confusion(len(names))).merge(counted)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return scores_by_sight(found, names)


def _scores(confusion: Confusion, names: Sequence[str]) -> dict[str, Any]:
    rows = zip(names, confusion.matrix, strict=True)
    numbers = confusion.as_dict(names)
    return {
        **{key: numbers[key] for key in ("points", "miou_present", "accuracy")},
        "confusion": {
            label: {name: int(count) for name, count in zip(names, row, strict=True) if count}
            for label, row in rows
            if row.any()
        },
    }


def _counted(kept: Mapping[str, Mapping[str, int]], names: Sequence[str]) -> Confusion:
    matrix = np.zeros((len(names), len(names)), np.int64)
    for label, row in kept.items():
        for predicted, count in row.items():
            matrix[names.index(label), names.index(predicted)] = count
    return Confusion.of(matrix)
