"""Pictures under titles, with legends."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pointseg.pictures.sheets import (
    UNNAMED,
    WRONG,
    class_colors,
    comparison,
    labelled,
    sheet,
)

COLORS = np.array([[255, 0, 0], [0, 160, 0]], np.uint8)


def has(picture, color):
    return (np.abs(np.asarray(picture).astype(int) - color).sum(2) < 12).any()


def test_labels_become_colors_and_the_unlabelled_are_grey():
    found = class_colors(np.array([1, -1, 0]), COLORS)
    np.testing.assert_array_equal(found, [[0, 160, 0], UNNAMED, [255, 0, 0]])
    with pytest.raises(ValueError, match="class_colors"):
        class_colors(np.array([2]), COLORS)


def test_pictures_keep_their_pixels_and_their_places():
    pixels = np.random.default_rng(0).integers(0, 256, (2, 33, 47, 3)).astype(np.uint8)
    first, second = map(Image.fromarray, pixels)
    found = np.asarray(sheet([("", first), ("", second)]))
    assert (found[:33, :47] == pixels[0]).all() and (found[:33, -47:] == pixels[1]).all()
    above = np.asarray(sheet([("one", first), ("two", second)], columns=1))
    assert (above[-33:] == pixels[1]).all()
    titled = above[: len(above) // 2 - 33]
    assert (titled < 100).any() and (titled[0] == 255).all()
    with pytest.raises(ValueError, match="'panels'"):
        sheet([])


def test_legends_take_any_names_and_stay_within_the_picture():
    picture = Image.new("RGB", (320, 20))
    names = ["$not math", "_hidden", *(f"a class with quite a long name {k}" for k in range(50))]
    found = sheet([("", picture)], legend=[(name, (0, 160, 0)) for name in names])
    pixels = np.asarray(found)
    assert found.width == 320 and has(found, COLORS[1])
    assert (pixels[20:, -2:] == 255).all() and (pixels[-2:] == 255).all()
    assert sheet([("a long title" * 20, Image.new("RGB", (20, 20)))]).width == 20


def test_errors_are_red_and_unlabelled_points_no_errors():
    rng = np.random.default_rng(0)
    coord = rng.random((4000, 3)).astype(np.float32)
    truth = np.where(coord[:, 0] < 0.5, 0, -1).astype(np.int32)
    wrong, right = np.ones_like(truth), np.zeros_like(truth)
    size = (100, 80)
    names = ["a", "b"]
    assert has(comparison(coord, truth, wrong, names, COLORS, size=size), WRONG)
    assert not has(comparison(coord, truth, right, names, COLORS, size=size), WRONG)
    four = comparison(coord, truth, wrong, names, COLORS, size=size, photo=coord * 255)
    assert four.width > 4 * 100


def test_the_legend_has_the_classes_that_occur():
    coord = np.random.default_rng(0).random((500, 3)).astype(np.float32)
    picture = labelled(coord, np.zeros(500, np.int32), ["a", "b"], COLORS, size=(120, 90))
    below = picture.crop((0, 90, picture.width, picture.height))
    assert has(below, COLORS[0]) and not has(below, COLORS[1])
    greys = (np.array(below) == UNNAMED).all(2).sum()  # of letters
    some = np.where(np.arange(500) < 250, -1, 0)
    picture = labelled(coord, some, ["a", "b"], COLORS, size=(120, 90))
    below = picture.crop((0, 90, picture.width, picture.height))
    assert has(below, COLORS[0])
    assert (np.array(below) == UNNAMED).all(2).sum() > greys + 50
