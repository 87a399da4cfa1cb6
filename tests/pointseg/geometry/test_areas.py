"""Areas of a cloud that lie apart, in blocks by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.geometry.areas import BLOCK_M, find_areas


def points(*blocks):
    """A point in each block, one metre from its lower corner."""
    xy = np.array(blocks, float) * BLOCK_M + 1
    return np.column_stack([xy, np.zeros(len(xy))]).astype(np.float32)


@pytest.mark.parametrize("pieces", [1, 3])
def test_blocks_that_touch_are_one_area(pieces):
    """Neighbours in the row, the column and at both corners; -0 and 0; a gap of one block."""
    coord = points((0, 0), (9, 5), (1, 0), (2, 1), (3, 0), (3, -1), (9, 7), (-0.5, 0), (10, 8))
    areas = find_areas(np.array_split(coord, pieces))
    assert areas.of(coord).tolist() == [0, 1, 0, 0, 0, 0, 2, 0, 2]
    low = [[1 - BLOCK_M / 2, 1 - BLOCK_M], [1 + 9 * BLOCK_M, 1 + 5 * BLOCK_M]]
    np.testing.assert_allclose(areas.low[:2], low)
    np.testing.assert_allclose(areas.high[2], [1 + 10 * BLOCK_M, 1 + 8 * BLOCK_M])
    assert areas.of(coord[::-1]).tolist() == areas.of(coord)[::-1].tolist()


def test_the_farthest_floats_are_areas_of_one_point():
    far = np.array([[3e38, -3e38, 0], [1e30, 5, 0], [1e12, 1e12, 0], [0, 0, 0]], np.float32)
    areas = find_areas([far])
    assert sorted(areas.of(far).tolist()) == [0, 1, 2, 3]
    np.testing.assert_array_equal(areas.low[areas.of(far)], far[:, :2])
