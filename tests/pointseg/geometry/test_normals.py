"""Normals by principal components: planes, a sphere, rotations, what has none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pointseg.geometry.normals import estimate_normals


def square(count=200, seed=0):
    """Points in the plane z = 0."""
    xy = np.random.default_rng(seed).uniform(-1, 1, (count, 2))
    return np.concatenate([xy, np.zeros((count, 1))], 1).astype(np.float32)


def sphere(count=4000, radius=2.0, seed=0):
    """Points about the origin, and the directions outwards."""
    outwards = np.random.default_rng(seed).normal(size=(count, 3))
    outwards /= np.linalg.norm(outwards, axis=1, keepdims=True)
    return (radius * outwards).astype(np.float32), outwards


def test_by_hand():
    corner = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], np.float32)
    assert np.allclose(estimate_normals(corner), [[0, 0, 1]] * 3)
    # the plane x + y + z = 1 has the normal (1, 1, 1) / sqrt(3)
    assert np.allclose(estimate_normals(np.eye(3, dtype=np.float32)), 3**-0.5)


def test_of_a_plane_upwards_or_towards_the_sensor():
    assert np.allclose(estimate_normals(square()), [0, 0, 1], atol=1e-6)
    assert np.allclose(
        estimate_normals(square(), sensor_position=(0, 0, -3)), [0, 0, -1], atol=1e-6
    )
    assert np.allclose(
        estimate_normals(square(), sensor_position=(5, 5, 0.1)), [0, 0, 1], atol=1e-6
    )


@pytest.mark.parametrize(("axis", "wanted"), [(0, (1, 0, 0)), (1, (0, 1, 0))])
def test_of_a_wall_along_the_axes(axis, wanted):
    wall = np.roll(square(), axis - 2, axis=1)
    assert np.allclose(estimate_normals(wall), wanted, atol=1e-6)


def test_of_a_sphere():
    coord, outwards = sphere()
    inwards = estimate_normals(coord, sensor_position=np.zeros(3))
    assert inwards.dtype == np.float32
    assert np.allclose(np.linalg.norm(inwards, axis=1), 1, atol=1e-6)
    angles = np.degrees(np.arccos(np.clip((-inwards * outwards).sum(1), -1, 1)))
    assert np.median(angles) < 1.5 and angles.max() < 8
    each = estimate_normals(coord, sensor_position=coord + outwards)
    assert np.allclose(each, -inwards)


@pytest.mark.parametrize("seed", range(3))
def test_turns_with_the_cloud(seed):
    rng = np.random.default_rng(seed)
    coord, eye = rng.normal(size=(300, 3)).astype(np.float32), np.array([9.0, -7, 8])
    turn = Rotation.random(random_state=seed).as_matrix()
    turned = estimate_normals((coord @ turn.T).astype(np.float32), sensor_position=turn @ eye)
    straight = estimate_normals(coord, sensor_position=eye) @ turn.T
    # some normals are nearly at right angles to the line of sight and may come out the other way
    agree = np.abs((turned * straight).sum(1))
    assert (agree > 0.999).mean() > 0.98
    assert ((turned * straight).sum(1) > 0.999).mean() > 0.97


def test_far_from_the_origin():
    coord = square(2000) * np.float32(5) + np.array([1000, 2000, 50], np.float32)
    assert np.allclose(np.abs(estimate_normals(coord)), [0, 0, 1], atol=1e-3)


@pytest.mark.parametrize(
    "coord",
    [
        np.zeros((0, 3)),
        np.zeros((1, 3)),
        np.array([[0, 0, 0], [1, 2, 3]]),
        np.full((40, 3), 1.7),
        np.linspace(0, 1, 30)[:, None] * [[1.0, 2.0, -0.7]] + [3.0, 100.0, 4.0],
    ],
    ids=["none", "one", "two", "equal", "line"],
)
def test_zero_where_there_is_no_plane(coord):
    assert not estimate_normals(coord.astype(np.float32)).any()


def test_pieces_and_threads_change_nothing(monkeypatch):
    coord, _ = sphere(500)
    whole = estimate_normals(coord, sensor_position=coord * 2)
    monkeypatch.setattr("pointseg.geometry.normals._CHUNK", 64)
    assert np.array_equal(estimate_normals(coord, sensor_position=coord * 2, workers=2), whole)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: estimate_normals(np.zeros((4, 2), np.float32)), "'coord'"),
        (lambda: estimate_normals(square(), k=2), "'k'"),
        (lambda: estimate_normals(np.full((4, 3), np.nan, np.float32)), "finite"),
        (lambda: estimate_normals(square(), sensor_position=(1, 2)), "'sensor_position'"),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
