"""Positions of two files: rounding by the coarser one is no difference, other points are."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.scoring.positions import check_same_points, step_of
from pointseg.scoring.spec import ScoreError

EXACT = np.random.default_rng(1).uniform(0, 40, (300, 3)) + [650_000.123, 6_860_000.456, 80]
GRID = np.stack(np.meshgrid(*[np.arange(6) * 0.1] * 3, indexing="ij"), -1).reshape(-1, 3)


def check(ours, theirs):
    return check_same_points(("ours.laz", ours), ("theirs.laz", theirs))


def las(xyz, scale=0.01, offset=0.00371):
    return np.rint((xyz - offset) / scale) * scale + offset


@pytest.mark.parametrize(
    ("changed", "most"),
    [
        (EXACT, 1e-6),
        (EXACT.round(3), 0.0011),
        (las(EXACT), 0.011),
        (np.floor(EXACT * 100) / 100, 0.011),  # written by cutting digits off
        (EXACT.astype(np.float32), 0.6),
        (EXACT.astype(np.float32).astype(np.float64), 0.6),
    ],
    ids=["the same", "text", "las", "truncated", "float32", "float32 as text"],
)
def test_rounding_is_no_difference(changed, most):
    assert check(EXACT, changed) <= most
    assert check(changed, EXACT) <= most
    if most < 0.1:
        with pytest.raises(ScoreError, match="row 7 .* 1 of 300"):
            moved = changed.copy()
            moved[7, 1] += 0.03
            check(EXACT, moved)


@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_neighbours_on_one_grid_are_other_points(kind):
    """Voxels: the step of the numbers is the distance of the points."""
    points = GRID.astype(kind)
    assert check(points, points) < 0.1
    with pytest.raises(ScoreError, match="row 0 .* 216 of 216"):
        check(points, np.roll(points, 1, axis=0))


def test_points_without_a_position():
    gaps = EXACT.copy()
    gaps[[3, 5]] = np.nan
    check(gaps, gaps.copy())
    with pytest.raises(ScoreError, match="row 3"):
        check(gaps, EXACT)
    check(np.full((2, 3), np.nan), np.full((2, 3), np.nan))
    check(np.zeros((0, 3)), np.zeros((0, 3)))


def test_steps():
    assert step_of(np.array([1.25, 3.5, 2.75])) == 0.25
    assert step_of(las(EXACT)[:, 0]) == pytest.approx(0.01)
    assert step_of(np.array([6_860_000.5], np.float32)) == 0.5
    assert step_of(EXACT[:, 0]) < 1e-6
