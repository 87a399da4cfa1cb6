"""Shapes: areas, even sampling, normals, insides."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.datasets.synthetic.primitives import Box, Cylinder, Panel, Pattern, Primitive

BOX = Box((1, 2, 3), (2, 4, 6))
CYLINDER = Cylinder((1, 2, 3), 2, 5)
PANEL = Panel((0, 0, 1), (4, 0, 0), (0, 2, 0), ((0.25, 0.5, 0.5, 1.0),))


def test_areas_by_hand():
    assert BOX.area == 2 * (8 + 24 + 12)
    assert CYLINDER.area == pytest.approx(2 * np.pi * 2 * 5 + 2 * np.pi * 4)
    assert PANEL.area == pytest.approx(8 - 1)


def test_points_of_a_box():
    points, normal = BOX.sample(20_000, np.random.default_rng(0))
    away = (points - BOX.center) / BOX.size
    assert np.abs(away).max() <= 0.5 + 1e-12
    np.testing.assert_allclose((away * normal).sum(1), 0.5)  # on the face that the normal names
    share = np.abs(normal).mean(0)
    np.testing.assert_allclose(share, np.array([24, 12, 8]) / 44, atol=0.02)
    np.testing.assert_allclose(points.mean(0), BOX.center, atol=0.1)


def test_points_of_a_cylinder():
    points, normal = CYLINDER.sample(20_000, np.random.default_rng(0))
    away = points - CYLINDER.base
    reach = np.hypot(*away[:, :2].T)
    side = normal[:, 2] == 0
    np.testing.assert_allclose(reach[side], 2)
    np.testing.assert_allclose(away[side, :2] / 2, normal[side, :2])
    assert side.mean() == pytest.approx(5 / 7, abs=0.02)
    assert set(np.unique(away[~side, 2])) == {0, 5} == set(np.unique((normal[~side, 2] > 0) * 5))
    assert (reach[~side] ** 2).mean() == pytest.approx(2, abs=0.1)  # even over the disc


def test_points_of_a_panel_leave_its_openings_free():
    points, normal = PANEL.sample(10_000, np.random.default_rng(0))
    x, y, z = points.T
    assert (z == 1).all() and normal.tolist() == [[0, 0, 1]] * 10_000
    assert x.min() >= 0 and x.max() <= 4 and y.min() >= 0 and y.max() <= 2
    assert not ((x >= 1) & (x < 2) & (y >= 1)).any()
    assert ((x < 1) & (y >= 1)).mean() == pytest.approx(1 / 7, abs=0.02)


def test_insides_by_hand():
    places = np.array(
        [[1, 2, 3], [1.99, 2, 3], [2.01, 2, 3], [1, 2, 5.99], [1, 2, 0.5], [1, 2, 8.5]]
    )
    assert BOX.contains(places, 0.0).tolist() == [True, True, False, True, True, False]
    assert BOX.contains(places, 0.1).tolist() == [True, False, False, False, True, False]
    assert CYLINDER.contains(places, 0.0).tolist() == [False, False, False, True, False, False]
    assert not PANEL.contains(places, 0.0).any()


@pytest.mark.parametrize("shape", [BOX, CYLINDER])
def test_surfaces_are_neither_inside_nor_far(shape):
    points, normal = shape.sample(1000, np.random.default_rng(0))
    assert not shape.contains(points, 1e-9).any()
    assert shape.contains(points - 1e-6 * normal, 1e-9).mean() > 0.99


def test_placing_turns_then_moves():
    primitive = Primitive(Box((1, 0, 0), (2, 1, 1)), 3, (1, 2, 3))
    moved = primitive.placed(10, 20, np.pi / 2, 7)
    np.testing.assert_allclose(moved.shape.center, [10, 21, 0], atol=1e-12)
    assert moved.instance == 7 and moved.label == 3
    points, normal = moved.shape.sample(2000, np.random.default_rng(0))
    np.testing.assert_allclose(np.ptp(points, axis=0), [1, 2, 1], atol=0.01)
    away = points - moved.shape.center
    assert ((away * normal).sum(1) > 0.4).all()
    round_one = Primitive(CYLINDER, 0, (0, 0, 0)).placed(5, 0, np.pi, 1)
    np.testing.assert_allclose(round_one.shape.base, [4, -2, 3], atol=1e-12)


def test_panels_stay_where_they_are():
    with pytest.raises(TypeError, match="panels belong to the room"):
        Primitive(PANEL, 0, (0, 0, 0)).placed(0, 0, 0, 0)


def test_patterns_by_hand():
    places = np.array([[0.1, 0, 0], [0.6, 0, 0], [1.1, 0, 0], [0.6, 0.6, 0], [-0.1, 0, 0]])
    stripes = Pattern(((1, 0, 0),), 0.5, 0.25)
    assert stripes.factor(places).tolist() == [1, 0.75, 1, 0.75, 0.75]
    squares = Pattern(((1, 0, 0), (0, 1, 0)), 0.5, 0.25)
    assert squares.factor(places).tolist() == [1, 0.75, 1, 1, 0.75]
