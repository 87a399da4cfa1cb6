"""Rays and surfaces of the shapes of generated rooms."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

from ray_casting import cast_rays, surface_at  # noqa: E402

from pointseg.datasets.synthetic.primitives import Box, Cylinder, Panel  # noqa: E402

CYLINDER = Cylinder((1, 2, 3), 2, 5)
PANEL = Panel((0, 0, 1), (4, 0, 0), (0, 2, 0), ((0.25, 0.5, 0.5, 1.0),))


@pytest.mark.parametrize("shape", [Box((1, 2, 3), (2, 4, 6), 0.4), CYLINDER, PANEL], ids=str)
def test_rays_meet_a_shape_where_its_surface_is(shape):
    rng = np.random.default_rng(0)
    points, normal = shape.sample(500, rng)
    origin = np.array([3.0, -9.0, 14.0])
    rays = (points - origin) / 2
    away = cast_rays(shape, origin, rays)
    facing = ((points - origin) * normal).sum(1) < -1e-9
    np.testing.assert_allclose(away[facing], 2)  # all are convex: nothing of itself is in the way
    assert (away[~facing] < 2).all() or isinstance(shape, Panel)
    found, along = surface_at(shape, points[facing])
    np.testing.assert_allclose(found, normal[facing], atol=1e-9)
    assert along.shape == (facing.sum(), 2)
    assert np.isinf(cast_rays(shape, origin, -rays)).all()


def test_rays_by_hand():
    box = Box((0, 0, 0), (2, 2, 2))
    rays = np.array([[0.0, 1, 0], [0, 2, 0], [1, 0, 0], [0, -1, 0]])
    np.testing.assert_array_equal(
        cast_rays(box, np.array([0.0, -5, 0]), rays), [4, 2, np.inf, np.inf]
    )
    # the hole of the panel spans x 1 to 2, y 1 to 2; from below nothing is seen
    down = np.tile([0.0, 0, -1], (1, 1))
    assert cast_rays(PANEL, np.array([0.5, 1.5, 4]), down) == 3
    assert np.isinf(cast_rays(PANEL, np.array([1.5, 1.5, 4]), down)).all()
    assert np.isinf(cast_rays(PANEL, np.array([0.5, 1.5, 0]), -down)).all()
    np.testing.assert_allclose(surface_at(PANEL, np.array([[0.5, 1.5, 1]]))[1], [[0.5, 1.5]])
    up = cast_rays(CYLINDER, np.array([1.0, 2, 0]), np.array([[0.0, 0, 1], [0, 0, -1]]))
    np.testing.assert_array_equal(up, [3, np.inf])


def test_metres_on_a_face_and_around_a_cylinder():
    box = Box((0, 0, 0), (2, 4, 6), np.pi / 2)  # its x axis lies along y
    normal, along = surface_at(box, np.array([[0.5, 1.0, 2.0]]))
    np.testing.assert_allclose(normal, [[0, 1, 0]], atol=1e-12)
    np.testing.assert_allclose(along, [[-0.5, 2.0]], atol=1e-12)
    normal, along = surface_at(CYLINDER, np.array([[1.0, 4, 4], [1.5, 2, 8]]))
    np.testing.assert_allclose(normal, [[0, 1, 0], [0, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(along, [[np.pi, 1], [0.5, 0]], atol=1e-12)
