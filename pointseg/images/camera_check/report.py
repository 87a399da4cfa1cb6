"""The result of a camera check as text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pandas as pd

from pointseg.images.camera_check.agreement import Agreement
from pointseg.images.camera_check.check import CameraCheck
from pointseg.images.camera_check.issues import Issue
from pointseg.images.camera_check.pose_conventions import INVERTED

CANNOT_TELL = (
    "neither depth maps, nor colours of points, nor the ground below upright cameras can confirm or "
    "refute them"
)
WIDTH = 28
"""Characters of a view's name."""


def view_table(found: CameraCheck) -> str:
    """One line per view; in brackets the same figures for the inverted pose and for shuffled pixels (chance)."""
    rows = []
    for view in found.views:
        own, other = view.stated, view.others.get(INVERTED)
        colors = f"{_text(other, 'color_error', 1)}, {_text(own, 'chance_color_error', 1)}"
        lower = f"{_text(own, 'ground_correlation', 2)} ({_text(other, 'ground_correlation', 2)})"
        rows.append({
            "view": view.name if len(view.name) <= WIDTH else f"...{view.name[3 - WIDTH:]}",
            "inside": f"{own.inside / own.points:.1%}",
            "visible": f"{own.visible / own.points:.1%}",
            "depth error, m (inverted)": f"{_text(own, 'depth_error_m', 3)} ({_text(other, 'depth_error_m', 3)})",
            "colour error, of 255 (inverted, chance)": f"{_text(own, 'color_error', 1)} ({colors})",
            "lower is nearer (inverted)": lower,
        })  # fmt: skip
    return str(pd.DataFrame(rows).to_string(index=False))


def summary(found: CameraCheck, *, frames: int, checked: int) -> list[str]:
    """The lines below the table.

    Args:
        found: the result.
        frames: number of images of the scene.
        checked: number of images that were to be checked.
    """
    more = "" if checked >= found.showing else f"; {checked} were checked (--max-views)"
    lines = [
        f"{found.showing} of {frames} images show the scene{more}",
        f"{found.inside:.1%} of the points lie in at least one image, {found.seen:.1%} are visible",
    ]
    if found.pose_check.alternative is None:
        reason = found.pose_check.reason
        lines.append(
            f"poses: plausible as stated; {reason}" if reason else
            f"poses: {CANNOT_TELL}: look at the pictures"
        )  # fmt: skip
    lines += [f"{'note' if issue.note else 'problem'}: {issue}" for issue in found.issues]
    return lines


def as_json(found: CameraCheck, *, frames: int) -> dict[str, Any]:
    """The same as plain data; None where a figure is unknown.

    Args:
        found: the result.
        frames: number of images of the scene.
    """
    poses = found.pose_check
    return {
        "images": frames,
        "images_showing": found.showing,
        "share_inside": found.inside,
        "share_visible": found.seen,
        "poses": {
            "fit_better_as": poses.alternative,
            "reason": poses.reason or None,
            "sure": poses.sure,
        },
        "problems": [_issue(issue) for issue in found.issues if not issue.note],
        "notes": [_issue(issue) for issue in found.issues if issue.note],
        "views": [
            {
                "name": view.name,
                "stated": asdict(view.stated),
                "others": {name: asdict(other) for name, other in view.others.items()},
            }
            for view in found.views
        ],
        "pictures": list(found.pictures),
    }


def _issue(issue: Issue) -> dict[str, Any]:
    return {"text": issue.text, "views": list(issue.views)}


def _text(view: Agreement | None, name: str, digits: int) -> str:
    value = None if view is None else getattr(view, name)
    return "-" if value is None else f"{value:.{digits}f}"
