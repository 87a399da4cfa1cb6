"""The scores of a test by point, as JSON and as text."""

from __future__ import annotations

from typing import Any

import numpy as np

from pointseg.datasets.classes import ClassList
from pointseg.metrics import Confusion

MEANS = ("miou", "miou_present", "accuracy", "mean_accuracy", "mean_accuracy_present")
BY_VISIBILITY = "test_point_miou_by_visibility"


def point_metrics(confusion: Confusion, classes: ClassList) -> dict[str, Any]:
    """Scores with names that say what they are; None if nothing was labelled."""
    found = confusion.as_dict(classes.names)
    points = found["points"]
    groups = {
        group: {
            "absent_as_0": confusion.miou(rows),
            "present": None
            if np.isnan(present := confusion.miou_present(rows))
            else float(present),
        }
        for group, rows in classes.groups.items()
        if points
    }
    return {
        **{f"test_point_{key}": found[key] if points else None for key in MEANS},
        "test_point_iou": found["iou"],
        "test_point_recall": found["recall"],
        "test_point_miou_by_group": groups,
        "labelled_points": points,
        "groups": {name: list(rows) for name, rows in classes.groups.items()},
    }


def metrics_text(metrics: dict[str, Any], confusion: Confusion) -> str:
    """A table of the classes, and the means."""
    if not metrics["labelled_points"]:
        return "no scene has labels: predicted, but not scored"
    lines = [confusion.table(list(metrics["test_point_iou"]))]
    for name, means in metrics["test_point_miou_by_group"].items():
        lines.append(f"{name}: {100 * means['absent_as_0']:.2f} (absent classes count as 0)")
    lines.append(f"test_point_miou {metrics['test_point_miou']:.4f} (absent classes count as 0)")
    lines.append(f"test_point_miou_present {metrics['test_point_miou_present']:.4f} (without them)")
    for name, part in metrics.get(BY_VISIBILITY, {}).items():
        if part["miou_present"] is not None:
            lines.append(
                f"points {name.replace('_', ' ')} in images: {part['points']:,} labelled, miou_present "
                f"{part['miou_present']:.4f}"
            )
    return "\n".join(lines)
