"""Transforms that move points."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from pointseg.scene import Scene
from pointseg.transforms import (
    CenterShift,
    ClampToBox,
    ElasticDistortion,
    RandomFlip,
    RandomJitter,
    RandomRotate,
    RandomScale,
)
from pointseg.transforms.geometric import NOISE_CELLS, flip, rotate
from tests.pointseg.transforms.rooms import check_fields_stayed_together, room

ALL = [
    CenterShift(),
    CenterShift(floor=False),
    RandomRotate(axis="x", degrees=20),
    RandomRotate(axis="z", degrees=180),
    RandomScale(low=0.8, high=1.2),
    RandomFlip(probability=1.0),
    RandomJitter(),
    ElasticDistortion(probability=1.0),
    ClampToBox(box_m=(11, -6, 0, 13, -5, 2)),
]


def points(*rows, **fields):
    return Scene(
        np.array(rows, np.float32), {k: np.array(v, np.float32) for k, v in fields.items()}
    )


@pytest.mark.parametrize("step", ALL, ids=lambda step: repr(step)[:24])
def test_points_move_and_everything_else_stays(step):
    whole = room()
    made = step(whole, np.random.default_rng(0))
    assert (made.coord != whole.coord).any() and made.coord.dtype == np.float32
    np.testing.assert_array_equal(made["row"], whole["row"])
    check_fields_stayed_together(made, whole)  # positions in images among them
    np.testing.assert_array_equal(made["color"], whole["color"])
    np.testing.assert_allclose(np.linalg.norm(made["normal"], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(whole.coord, whole["first"])  # the input is left alone
    again = step(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(made.coord, again.coord)


@pytest.mark.parametrize("step", ALL, ids=lambda step: repr(step)[:24])
def test_one_point(step):
    assert np.isfinite(step(room(1), np.random.default_rng(0)).coord).all()


@pytest.mark.parametrize(
    "step", [s for s in ALL if not isinstance(s, RandomJitter)], ids=lambda step: repr(step)[:24]
)
def test_the_order_of_points_does_not_matter(step):
    whole, shuffle = room(), np.random.default_rng(1).permutation(400)
    one = step(whole, np.random.default_rng(0))
    other = step(whole.select(shuffle), np.random.default_rng(0))
    np.testing.assert_allclose(one.coord[shuffle], other.coord, atol=1e-6)


def test_center_shift_by_hand():
    made = CenterShift()(points([1, 2, 3], [5, 4, 9]), np.random.default_rng(0))
    assert made.coord.tolist() == [[-2, -1, 0], [2, 1, 6]]
    assert made.origin.tolist() == [3, 3, 3]
    made = CenterShift(floor=False)(points([1, 2, 3], [5, 4, 9]), np.random.default_rng(0))
    assert made.coord.tolist() == [[-2, -1, 3], [2, 1, 9]]


def test_center_shift_keeps_places_in_the_world():
    whole = room()
    made = CenterShift()(whole, np.random.default_rng(0))
    np.testing.assert_allclose(made.coord + made.origin, whole.coord + whole.origin, atol=1e-6)


@pytest.mark.parametrize(
    ("axis", "wanted"), [("x", [1, -3, 2]), ("y", [3, 2, -1]), ("z", [-2, 1, 3])]
)
def test_a_quarter_turn_by_hand(axis, wanted):
    turned = rotate(points([1, 2, 3], normal=[[1, 2, 3]]), axis, 90)
    assert turned.coord.tolist() == [wanted] and turned["normal"].tolist() == [wanted]


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, 360, -90])
def test_quarter_turns_are_exact(degrees):
    lattice = points(*np.ndindex(5, 5, 5))
    turned = rotate(lattice, "z", degrees)
    np.testing.assert_array_equal(turned.coord, np.round(turned.coord))
    np.testing.assert_array_equal(rotate(turned, "z", -degrees).coord, lattice.coord)


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_turning_back(axis):
    whole = room()
    turned = rotate(whole, axis, 37.0)
    back = rotate(turned, axis, -37.0)
    np.testing.assert_allclose(back.coord, whole.coord, atol=2e-6)
    np.testing.assert_allclose(back["normal"], whole["normal"], atol=1e-6)
    # angles between normals and positions stay
    before, after = (np.einsum("na,na->n", s.coord, s["normal"]) for s in (whole, turned))
    np.testing.assert_allclose(after, before, atol=1e-5)


def test_small_turns_go_the_same_way_as_quarter_turns():
    for axis in "xyz":
        near, exact = (rotate(points([1, 2, 3]), axis, d).coord for d in (89.999, 90))
        np.testing.assert_allclose(near, exact, atol=1e-3)


def test_random_rotation_has_its_range_and_probability():
    step, rng = RandomRotate(axis="z", degrees=30, probability=0.5), np.random.default_rng(0)
    ahead = points([1, 0, 0])
    angles = np.array(
        [np.rad2deg(np.arctan2(*step(ahead, rng).coord[0, 1::-1])) for _ in range(1000)]
    )
    assert 430 < (angles == 0).sum() < 570
    assert 28 < angles.max() <= 30 and -30 <= angles.min() < -28


def test_flips_by_hand_and_twice():
    one = points([1, 2, 3], normal=[[0, 0.6, 0.8]])
    assert flip(one, x=True, y=False).coord.tolist() == [[-1, 2, 3]]
    assert flip(one, x=False, y=True).coord.tolist() == [[1, -2, 3]]
    np.testing.assert_allclose(flip(one, x=True, y=True)["normal"], [[0, -0.6, 0.8]])
    whole = room()
    twice = flip(flip(whole, x=True, y=True), x=True, y=True)
    np.testing.assert_array_equal(twice.coord, whole.coord)
    np.testing.assert_array_equal(twice["normal"], whole["normal"])
    assert flip(whole, x=False, y=False) is whole


def test_random_flips_are_drawn_one_by_one():
    rng, step = np.random.default_rng(0), RandomFlip(probability=0.5)
    seen = [tuple(step(points([1, 1, 1]), rng).coord[0]) for _ in range(400)]
    for wanted in [(1, 1, 1), (-1, 1, 1), (1, -1, 1), (-1, -1, 1)]:
        assert 65 < seen.count(wanted) < 135


def test_scale_keeps_the_shape():
    whole = room()
    made = RandomScale(low=0.9, high=1.1)(whole, np.random.default_rng(0))
    factors = made.coord / whole.coord
    np.testing.assert_allclose(factors, factors[0, 0], rtol=1e-6)
    assert 0.9 <= factors[0, 0] <= 1.1
    np.testing.assert_array_equal(made["normal"], whole["normal"])
    same = RandomScale(low=1.0, high=1.0)(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(same.coord, whole.coord)


def test_jitter_has_its_spread_and_its_limit():
    whole = points(*np.zeros((5000, 3)))
    made = RandomJitter(std_m=0.005, clip_m=0.02)(whole, np.random.default_rng(0))
    np.testing.assert_allclose(made.coord.std(0), 0.005, rtol=0.05)
    narrow = RandomJitter(std_m=0.005, clip_m=0.006)(whole, np.random.default_rng(0))
    assert np.abs(narrow.coord).max() == np.float32(0.006)
    still = RandomJitter(std_m=0.0, clip_m=0.0)(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(still.coord, whole.coord)


def test_clamp_by_hand():
    made = ClampToBox(box_m=(0, 0, 0, 1, 1, 1))(
        points([2, 0.5, -3], [0.25, 0.5, 0.75]), np.random.default_rng(0)
    )
    assert made.coord.tolist() == [[1, 0.5, 0], [0.25, 0.5, 0.75]]


def test_elastic_distortion_is_smoothed_noise_read_trilinearly():
    """The same field by other means: a convolution with boxes and scipy's grid interpolator."""
    whole = room()
    cell, magnitude = 0.2, 0.4
    made = ElasticDistortion(fields=((cell, magnitude),), probability=1.0)(
        whole, np.random.default_rng(0)
    )
    rng = np.random.default_rng(0)
    rng.random()  # whether
    low = whole.coord.min(0)
    shape = ((whole.coord.max(0) - low) // cell).astype(int) + 3
    axes = [start - cell + cell * np.arange(n) for start, n in zip(low, shape, strict=True)]
    for axis in range(3):
        field = rng.standard_normal(tuple(shape), dtype=np.float32)
        for box in [(3, 1, 1), (1, 3, 1), (1, 1, 3)] * 2:
            field = ndimage.convolve(field, np.full(box, 1 / 3), mode="constant", cval=0)
        moved = RegularGridInterpolator(axes, field)(whole.coord)
        np.testing.assert_allclose(
            made.coord[:, axis], whole.coord[:, axis] + magnitude * moved, atol=1e-5
        )


def test_elastic_distortion_is_smooth():
    whole = room(2000)
    made = ElasticDistortion(probability=1.0)(whole, np.random.default_rng(0))
    moved = made.coord - whole.coord
    assert 0.01 < moved.std() < 0.3
    near = whole.coord + np.float32(0.001)
    both = Scene(np.concatenate([whole.coord, near]))
    pair = ElasticDistortion(probability=1.0)(both, np.random.default_rng(0))
    moved = pair.coord - both.coord
    assert np.abs(moved[:2000] - moved[2000:]).max() < 0.01


def test_elastic_distortion_of_a_wide_scene_repeats():
    """A scene of 50 km takes no more memory than one of 25 m, and is bent alike in each period."""
    period = NOISE_CELLS * 0.2
    line = np.zeros((3000, 3), np.float32)
    line[:, 0] = np.arange(3000) * 0.05
    line = np.concatenate([line, [[50_000, 0, 0]]]).astype(np.float32)
    made = ElasticDistortion(fields=((0.2, 0.4),), probability=1.0)(
        Scene(line), np.random.default_rng(0)
    )
    moved = made.coord - line
    steps = round(period / 0.05)
    np.testing.assert_allclose(moved[:1000], moved[steps : 1000 + steps], atol=1e-4)
    assert np.abs(np.diff(moved[:3000, 0])).max() < 0.1  # smooth also where a period ends
    assert moved.std() > 0.01


def test_elastic_distortion_may_be_nothing():
    whole = room()
    assert ElasticDistortion(probability=0.0)(whole, np.random.default_rng(0)) is whole
    still = ElasticDistortion(fields=(), probability=1.0)(whole, np.random.default_rng(0))
    np.testing.assert_array_equal(still.coord, whole.coord)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: RandomRotate(axis="w", degrees=3), "'axis'"),
        (lambda: RandomScale(low=1.2, high=1.1), "low"),
        (lambda: ElasticDistortion(fields=((0.0, 1.0),)), "'fields'"),
        (lambda: ClampToBox(box_m=(0, 0, 0)), "'box_m'"),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
