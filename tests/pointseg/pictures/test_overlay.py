"""Points over images and images on points."""

from __future__ import annotations

import numpy as np

from pointseg.pictures.overlay import LARGEST, UNSEEN, depth_colors, from_images, over_image

GREY = np.full((40, 60, 3), 100, np.uint8)


def test_near_is_red_and_far_is_violet():
    near, middle, far = depth_colors(np.array([1.0, 10.0, 100.0]), 1, 100).astype(int)
    assert near[0] > 100 and near[2] < 60
    assert middle[1] > 200
    assert far[2] > far[1] and far.max() < 100
    beyond = depth_colors(np.array([0.5, 1e4]), 1, 100)
    assert (beyond == depth_colors(np.array([1.0, 100.0]), 1, 100)).all()


def test_points_lie_where_they_should_and_the_nearest_wins():
    uv = np.array([[10.5, 5.5], [10.5, 5.5], [50.0, 30.0], [-1.0, 5.0], [5.0, 40.0]])
    depth = np.array([9.0, 1.0, 9.0, 1.0, 1.0])
    drawn = np.asarray(over_image(GREY, uv, depth)).astype(int)
    assert drawn.shape[0] > 40 and drawn.shape[1] == 60  # the scale is below
    assert drawn[5, 10, 0] > drawn[5, 10, 2]  # red, not what lies behind
    assert drawn[30, 50, 0] < 100 and (drawn[20, 30] == 55).all()  # the image, faded
    assert (drawn[2:9, 0:3] == 55).all() and (drawn[38, 5] == 55).all()  # outside of the image


def test_no_points_leave_the_image_as_it_is():
    empty = np.asarray(over_image(GREY, np.zeros((0, 2)), np.zeros(0)))
    assert (empty[:40] == 55).all()


def test_large_images_are_made_smaller():
    wide = np.zeros((100, 2 * LARGEST, 3), np.uint8)
    picture = over_image(wide, np.array([[2 * LARGEST - 1.0, 99.0]]), np.array([3.0]), title="wide")
    assert picture.width == LARGEST
    bar = 34
    assert np.asarray(picture)[bar + 49, LARGEST - 1].any()


def test_unseen_points_are_grey():
    coord = np.random.default_rng(0).random((400, 3)) * [2, 2, 0.1]
    colors = np.zeros((400, 3)) + [250, 0, 0]
    hidden = np.asarray(from_images(coord, colors, np.zeros(400, bool), size=(90, 70)))
    assert (np.abs(hidden.astype(int) - UNSEEN).max(2) < 4).any()
    assert not ((hidden[40:, :, 0] > 200) & (hidden[40:, :, 1] < 60)).any()
    both = from_images(coord, colors, np.ones(400, bool), own=colors, size=(90, 70))
    assert both.height == 2 * len(hidden)
