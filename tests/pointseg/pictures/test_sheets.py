"""Pictures under titles, with legends."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointseg.pictures.sheets import (
    UNNAMED,
    WRONG,
    beside,
    class_colors,
    comparison,
    labelled,
    legend,
)

COLORS = np.array([[255, 0, 0], [0, 160, 0]], np.uint8)


def has(picture, color):
    return (np.abs(np.asarray(picture).astype(int) - color).sum(2) < 12).any()


def test_labels_become_colors_and_the_unlabelled_are_grey():
    found = class_colors(np.array([1, -1, 0]), COLORS)
    np.testing.assert_array_equal(found, [[0, 160, 0], UNNAMED, [255, 0, 0]])
    with pytest.raises(ValueError, match="labels must be below 2"):
        class_colors(np.array([2]), COLORS)


def test_a_legend_shows_the_classes_that_are_there():
    whole = legend(["wall", "floor"], COLORS, 300)
    assert whole.width == 300 and has(whole, COLORS[0]) and has(whole, COLORS[1])
    part = legend(["wall", "floor"], COLORS, 300, counts=np.array([0, 5]))
    assert not has(part, COLORS[0]) and has(part, COLORS[1])
    assert legend(["wall", "floor"], COLORS, 300, counts=np.array([0, 0])).height == 1


def test_a_legend_of_many_long_names_stays_within_its_width():
    names = [f"a class with quite a long name {k}" for k in range(200)]
    colors = np.random.default_rng(0).integers(0, 255, (200, 3)).astype(np.uint8)
    counts = np.arange(200)
    few = legend(names, colors, 320, counts=counts)
    assert few.width == 320 and few.height < 60 * 24 + 17  # the sixty most frequent
    assert legend(names, colors, 40).width == 40


def test_errors_are_red_and_unlabelled_points_no_errors():
    rng = np.random.default_rng(0)
    coord = rng.random((4000, 3)).astype(np.float32)
    truth = np.where(coord[:, 0] < 0.5, 0, -1).astype(np.int32)
    wrong = np.ones(len(truth), np.int32)
    size = (100, 80)
    sheet = comparison(coord, truth, wrong, ["a", "b"], COLORS, size=size)
    assert sheet.width == 3 * 100 + 2 * 8
    assert has(sheet.crop((216, 30, 316, 114)), WRONG)
    right = comparison(coord, truth, np.zeros_like(truth), ["a", "b"], COLORS, size=size)
    assert not has(right.crop((216, 34, 316, 114)), WRONG)
    four = comparison(coord, truth, wrong, ["a", "b"], COLORS, size=size, photo=coord * 255)
    assert four.width == 4 * 100 + 3 * 8


def test_a_labelled_cloud_has_its_legend_below():
    coord = np.random.default_rng(0).random((500, 3)).astype(np.float32)
    picture = labelled(coord, np.zeros(500, np.int32), ["a", "b"], COLORS, size=(120, 90))
    assert picture.width == 120 and picture.height > 90
    assert has(picture.crop((0, 90, 120, picture.height)), COLORS[0])


def test_pictures_side_by_side():
    sheet = beside([Image.new("RGB", (10, 20)), Image.new("RGB", (30, 5))])
    assert sheet.size == (48, 20)
    with pytest.raises(ValueError, match="at least one picture"):
        beside([])
