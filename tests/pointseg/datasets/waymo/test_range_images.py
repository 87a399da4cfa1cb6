"""Range images to points, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.datasets.waymo.range_images import (
    LaserCalibration,
    PixelPoses,
    points_of,
    rotation,
)

QUARTER = np.pi / 2
# Turned to the left by 90 degrees, at 1, 2, 3 m of the car.
MOUNTED = np.array([[0, -1, 0, 1], [1, 0, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1.0]])


def test_rows_begin_with_the_highest_beam() -> None:
    uniform = LaserCalibration(np.eye(4), None, -0.2, 0.2)
    assert np.allclose(uniform.beams(2), [0.1, -0.1])
    listed = LaserCalibration(np.eye(4), np.array([-0.3, 0.0, 0.1]), 0, 0)
    assert listed.beams(3).tolist() == [0.1, 0.0, -0.3]
    with pytest.raises(ValueError, match="3 beams"):
        listed.beams(4)


def test_columns_run_clockwise_around_the_car() -> None:
    ahead = LaserCalibration(np.eye(4), None, 0, 1)
    assert np.allclose(ahead.azimuths(4), np.pi * np.array([0.75, 0.25, -0.25, -0.75]))
    turned = LaserCalibration(MOUNTED, None, 0, 1)
    assert np.allclose(turned.azimuths(4), ahead.azimuths(4) - QUARTER)


def test_a_pixel_by_hand() -> None:
    """10 m, 30 degrees down, 45 degrees to the left of the car's x axis, from 1, 2, 3 m."""
    image = np.full((2, 4, 4), -1.0)
    image[1, 1, 0] = 10
    mounted = LaserCalibration(MOUNTED, np.deg2rad([-30, 10]), 0, 0)
    level = 10 * np.sqrt(0.75) * np.sqrt(0.5)
    assert np.allclose(points_of(image, mounted, None), [[1 + level, 2 + level, 3 - 5]])


def test_angles_are_applied_about_x_then_y_then_z() -> None:
    """Roll takes y to z, pitch takes that to x, yaw takes that to y."""
    one = np.full(1, QUARTER)
    turn = rotation(one, one, one)[0]
    assert np.allclose(turn @ [0, 1, 0], [0, 1, 0])
    assert np.allclose(turn @ [1, 0, 0], [0, 0, -1])
    assert np.allclose(turn @ [0, 0, 1], [1, 0, 0])


def test_the_motion_of_the_car_is_taken_out() -> None:
    """1 m ahead of a car that looks along +y of the world at 30000, 20000, seen from one 1 m behind along x."""
    image = np.ones((1, 1, 4))
    poses = np.array([[[0, 0, QUARTER, 30_000, 20_000, 5]]])
    vehicle = np.eye(4)
    vehicle[:3, 3] = [30_000, 19_999, 5]
    flat = LaserCalibration(np.eye(4), np.zeros(1), 0, 0)
    found = points_of(image, flat, PixelPoses(poses, vehicle))
    assert np.allclose(found, [[0, 2, 0]], atol=1e-9)
    with pytest.raises(ValueError, match="pose for each pixel"):
        points_of(np.ones((1, 2, 4)), flat, PixelPoses(poses, vehicle))


def test_ranges_that_are_no_numbers_are_refused() -> None:
    image = np.full((1, 1, 4), np.inf)
    with pytest.raises(ValueError, match="finite"):
        points_of(image, LaserCalibration(np.eye(4), None, 0, 1), None)
