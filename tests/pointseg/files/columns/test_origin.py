"""Origins: round, only where needed, and precise enough."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import finite_points
from pointseg.files.columns.origin import split_origin
from pointseg.scene import Scene


def test_by_hand():
    xyz = np.array([[500_012.25, -10.0, 9_999.0], [500_010.5, 10.0, -9_999.0]])
    coord, origin = split_origin(xyz)
    assert origin.tolist() == [500_000, 0, 0]
    assert coord.tolist() == [[12.25, -10, 9999], [10.5, 10, -9999]]
    assert coord.dtype == np.float32 and origin.dtype == np.float64


@pytest.mark.parametrize("far", [1e4 + 1, 3e5, 1e7, -4.2e6])
def test_millimetres_survive(far):
    xyz = far + np.random.default_rng(0).uniform(-500, 500, (1000, 3))
    coord, origin = split_origin(xyz)
    np.testing.assert_allclose(coord + origin, xyz, rtol=0, atol=3e-5)
    assert (origin % 100 == 0).all() and np.abs(coord).max() < 1100


def test_one_point_far_out_does_not_take_the_precision_of_the_others():
    xyz = np.full((100, 3), 5e6 + 0.125)
    xyz[0] = -1e12
    coord, origin = split_origin(xyz)
    assert origin.tolist() == [5e6] * 3 and coord[1].tolist() == [0.125] * 3


def test_what_is_not_finite_or_beyond_float32():
    xyz = np.array([[np.nan, 1, 2], [np.inf, 3, 4], [1e300, 5, 6], [7, 8, 9], [7, 8, 9]])
    coord, origin = split_origin(xyz)
    assert origin.tolist() == [0, 0, 0]
    assert (
        np.isnan(coord[0, 0]) and np.isinf(coord[1:3, 0]).all() and coord[3].tolist() == [7, 8, 9]
    )
    scene, index = finite_points(Scene(coord=coord, fields={"n": np.arange(5)}))
    assert index.tolist() == [3, 4] == scene["n"].tolist()


def test_float32_positions_that_are_far():
    coord, origin = split_origin(np.full((2, 3), 20_000_000, np.float32))
    assert origin.tolist() == [2e7] * 3 and coord.tolist() == [[0] * 3] * 2


def test_no_points():
    coord, origin = split_origin(np.empty((0, 3)))
    assert coord.shape == (0, 3) and origin.tolist() == [0, 0, 0]


def test_a_scene_without_gaps_is_handed_back():
    scene = Scene(coord=np.zeros((3, 3), np.float32))
    assert finite_points(scene)[0] is scene
