"""Transforms of colour."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.scene import Scene
from pointseg.transforms import AutoContrast, ColorJitter, ColorShift
from tests.pointseg.transforms.rooms import check_fields_stayed_together, room

ALL = [AutoContrast, ColorShift, ColorJitter]


def colored(*rows):
    return Scene(np.zeros((len(rows), 3), np.float32), {"color": np.array(rows, np.float32)})


@pytest.mark.parametrize("kind", ALL)
def test_only_colour_changes_and_stays_in_its_range(kind):
    whole, step = room(), kind(probability=1.0)
    made = step(whole, np.random.default_rng(0))
    assert (made["color"] != whole["color"]).any() and made["color"].dtype == np.float32
    assert made["color"].min() >= 0 and made["color"].max() <= 255
    check_fields_stayed_together(made, whole)
    np.testing.assert_array_equal(made["normal"], whole["normal"])
    np.testing.assert_array_equal(made.coord, whole.coord)
    again = step(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(made["color"], again["color"])


@pytest.mark.parametrize("kind", ALL)
def test_probability(kind):
    whole, rng = room(5), np.random.default_rng(0)
    assert kind(probability=0.0)(whole, rng) is whole
    changed = sum(kind(probability=0.3)(whole, rng) is not whole for _ in range(1000))
    assert 240 < changed < 360


@pytest.mark.parametrize("kind", ALL)
def test_a_scene_without_colour_is_refused(kind):
    with pytest.raises(ValueError, match="'color'"):
        kind()(room(color=False), np.random.default_rng(0))


def test_auto_contrast_by_hand():
    rng = np.random.default_rng(0)
    rng.random()  # whether
    share = rng.random()  # how much
    made = AutoContrast(probability=1.0)(
        colored([50, 7, 0], [150, 7, 255], [100, 7, 51]), np.random.default_rng(0)
    )
    # red is stretched from 50..150 to 0..255, green has one value, blue has all
    red = [50 + share * (0 - 50), 150 + share * (255 - 150), 100 + share * (127.5 - 100)]
    np.testing.assert_allclose(made["color"][:, 0], red, rtol=1e-5)
    np.testing.assert_array_equal(made["color"][:, 1], [7, 7, 7])
    np.testing.assert_allclose(made["color"][:, 2], [0, 255, 51], atol=1e-4)


def test_color_shift_moves_all_points_alike():
    whole, step = colored([100, 100, 100], [120, 110, 90]), ColorShift(ratio=0.05, probability=1.0)
    shifts = []
    for seed in range(300):
        made = step(whole, np.random.default_rng(seed))
        change = made["color"] - whole["color"]
        np.testing.assert_allclose(change[0], change[1], atol=1e-4)
        shifts.append(change[0])
    assert 12.0 < np.abs(shifts).max() <= 12.75 + 1e-4  # 0.05 * 255
    assert abs(np.mean(shifts)) < 1.0
    bright = step(colored([255, 255, 255], [0, 0, 0]), np.random.default_rng(1))["color"]
    assert bright.min() >= 0 and bright.max() <= 255


def test_color_jitter_has_its_spread():
    whole = colored(*[[128, 128, 128]] * 4000)
    made = ColorJitter(std=0.05, probability=1.0)(whole, np.random.default_rng(0))
    change = made["color"] - 128
    np.testing.assert_allclose(change.std(0), 12.75, rtol=0.05)
    np.testing.assert_allclose(change.mean(0), 0, atol=1.0)
