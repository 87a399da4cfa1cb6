"""Heights above the ground, on terrain that is known."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.ops import ground
from pointseg.ops.ground import height_above_ground


def terrain(slope):
    """Ground points of a plane, and points of a house of 12 m and a tree on it, with their true height."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 80, (40_000, 2))
    house = (np.abs(xy - 40) < 6).all(1)
    tree = np.linalg.norm(xy - [60, 20], axis=1) < 3
    height = np.where(house, 7.0, 0) + np.where(tree, rng.uniform(0, 9, len(xy)), 0)
    coord = np.column_stack([xy, slope * xy[:, 0] + height])
    return coord.astype(np.float32), height, house


@pytest.mark.parametrize(("slope", "within"), [(0.0, 0.01), (0.1, 0.15)])
def test_a_house_stands_on_its_ground_and_slopes_are_no_height(slope, within):
    coord, height, house = terrain(slope)
    inside = (np.abs(coord[:, 0] - 40) < 20) & (np.abs(coord[:, 1] - 40) < 38)
    found = height_above_ground(coord)
    assert found.shape == (len(coord), 1) and found.dtype == np.float32
    np.testing.assert_allclose(found[inside, 0], height[inside], atol=within)
    assert np.median(found[house]) == pytest.approx(7, abs=within)


def test_wide_clouds_have_larger_cells_and_gaps_are_filled(monkeypatch):
    monkeypatch.setattr(ground, "MOST_CELLS", 100)
    far = np.array([[0, 0, 5], [1000, 0, 5], [0, 1000, 6], [1000, 1000, 8]], np.float32)
    assert np.abs(height_above_ground(far)).max() < 1e-5
    assert height_above_ground(far[:0]).shape == (0, 1)
    assert height_above_ground(far[:1]).tolist() == [[0]]
