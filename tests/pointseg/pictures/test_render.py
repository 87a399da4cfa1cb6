"""Clouds as pictures: where points land, what hides what, what is cut off."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.pictures.render import PAPER, render
from pointseg.pictures.viewpoints import below_ceiling, upright

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def colored(*rows):
    coord = np.array([row[0] for row in rows], np.float32)
    return coord, np.array([row[1] for row in rows], np.uint8)


def centre_of(picture, color):
    """Mean column and row of the pixels that are mostly of one colour."""
    pixels = np.asarray(picture).astype(int)
    near = np.abs(pixels - color).sum(2) < 120
    rows, columns = np.nonzero(near)
    return columns.mean(), rows.mean()


def test_from_above_x_goes_right_and_y_up():
    coord, colors = colored(((0, 0, 0), RED), ((4, 0, 0), GREEN), ((0, 3, 0), BLUE))
    picture = render(coord, colors, viewpoint="top", size=(200, 160))
    red, green, blue = (centre_of(picture, color) for color in (RED, GREEN, BLUE))
    assert green[0] > red[0] + 100 and abs(green[1] - red[1]) < 2
    assert blue[1] < red[1] - 100 and abs(blue[0] - red[0]) < 2
    scale = (green[0] - red[0]) / 4
    assert (red[1] - blue[1]) / 3 == pytest.approx(scale, rel=0.03)  # one scale for both axes


def plate(z, color, count=40, side=1.0):
    grid = np.linspace(0, side, count, dtype=np.float32)
    x, y = (a.ravel() for a in np.meshgrid(grid, grid))
    return np.stack([x, y, np.full_like(x, z)], 1), np.tile(np.uint8(color), (len(x), 1))


@pytest.mark.parametrize("reverse", [False, True])
def test_higher_points_hide_lower_ones_in_whatever_order(reverse):
    parts = [plate(0, RED), plate(1, GREEN)]
    coord, colors = (np.concatenate(p) for p in zip(*parts[:: -1 if reverse else 1], strict=True))
    picture = render(coord, colors, viewpoint="top", size=(120, 120), cut_ceiling=False)
    pixels = np.asarray(picture).reshape(-1, 3)
    drawn = pixels[(pixels != PAPER).any(1)]
    assert len(drawn) > 3000
    assert (drawn[:, 0] <= drawn[:, 1]).all()  # no red; antialiasing mixes green with the paper


def test_from_the_side_a_wall_in_front_hides_the_one_behind_it():
    grid = np.linspace(0, 1, 60, dtype=np.float32)
    x, z = (a.ravel() for a in np.meshgrid(grid, grid))
    front = np.stack([x, np.zeros_like(x), z], 1)
    behind = front + np.float32([0, 0.2, 0])
    coord = np.concatenate([front, behind])
    colors = np.repeat(np.array([RED, GREEN], np.uint8), len(front), axis=0)
    pixels = np.asarray(render(coord, colors, size=(160, 160))).astype(int)
    red, green = (np.abs(pixels - c).sum(2) < 150 for c in (RED, GREEN))
    assert red.sum() > 2 * green.sum() > 0  # only the upper edge of the wall behind is seen


def test_a_plane_has_no_holes():
    for count in (30, 100, 300):
        coord, colors = plate(0, BLUE, count)
        pixels = np.asarray(render(coord, colors, viewpoint="top", size=(200, 200)))
        assert (pixels[20:180, 20:180, 2] > pixels[20:180, 20:180, 0] + 100).all(), count


def test_what_lies_behind_an_edge_is_darker():
    low, high = plate(0, (200, 200, 200), 150), plate(0.3, (200, 200, 200), 60, side=0.4)
    coord, colors = np.concatenate([low[0], high[0]]), np.concatenate([low[1], high[1]])
    pixels = np.asarray(render(coord, colors, viewpoint="top", size=(300, 300), cut_ceiling=False))
    inner = pixels[15:285, 15:285, 0]
    assert inner.min() < 170 and np.median(inner) == 200


def test_points_moved_and_scaled_make_the_same_picture():
    rng = np.random.default_rng(0)
    coord = rng.random((3000, 3)).astype(np.float32)
    colors = rng.integers(0, 255, (3000, 3)).astype(np.uint8)
    first = np.asarray(render(coord, colors, size=(160, 120)), int)
    second = np.asarray(render(coord * 8 + np.float32([64, -32, 16]), colors, size=(160, 120)), int)
    assert (np.abs(first - second).max(2) > 8).mean() < 0.01


@pytest.mark.parametrize("first", [(0, 0, 0), (np.nan, np.inf, 0), (4.5e5, 5.4e6, 200)])
def test_positions_of_float64_keep_their_digits(first):
    """In UTM float32 has half a metre, and one row of missing values must not bring that back."""
    rng = np.random.default_rng(0)
    coord, colors = rng.random((5000, 3)) * 3, np.full((5000, 3), BLUE, np.uint8)
    shares = []
    for _ in range(2):
        pixels = np.asarray(render(coord, colors, viewpoint="top", size=(100, 100)))
        shares.append((pixels != PAPER).any(2).mean())
        coord += [4.5e5, 5.4e6, 200]
        coord[0] = first
    assert shares[1] == pytest.approx(shares[0], abs=0.05)


def test_outliers_do_not_shrink_the_picture_and_points_without_position_are_left_out():
    coord, colors = plate(0, BLUE, 100)
    coord = np.concatenate([coord, [[500, 500, 3], [np.nan, 0, 0], [np.inf, 1, 0]]])
    colors = np.concatenate([colors, np.tile(np.uint8(RED), (3, 1))])
    for viewpoint in ("top", "oblique"):
        pixels = np.asarray(
            render(coord.astype(np.float32), colors, viewpoint=viewpoint, size=(200, 200))
        )
        assert ((pixels != PAPER).any(2)).mean() > 0.3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_few_points_are_a_picture_too(count):
    coord = np.zeros((count, 3), np.float32)  # all at one place
    picture = render(coord, np.zeros((count, 3), np.uint8), size=(64, 48))
    assert picture.size == (64, 48)
    assert (np.asarray(picture) != PAPER).any() == (count > 0)


def room(ceiling=True):
    rng = np.random.default_rng(0)

    def sheet(count, *axes):
        points = rng.random((count, 3)) * [5, 4, 2.5]
        for axis, value in axes:
            points[:, axis] = value
        return points

    parts = [sheet(4000, (2, 0)), sheet(3000, (0, 0)), sheet(3000, (1, 0)), sheet(3000, (1, 4))]
    parts += [sheet(4000, (2, 2.5))] if ceiling else []
    return np.concatenate(parts).astype(np.float32)


def test_a_ceiling_is_lifted_off_and_the_rest_stays():
    coord = room()
    kept = below_ceiling(coord)
    assert not kept[coord[:, 2] > 2.49].any()
    assert kept[coord[:, 2] < 2.2].all()


def test_the_ceilings_of_many_small_rooms_are_lifted_off_together():
    rng = np.random.default_rng(0)
    parts = [rng.random((60_000, 3)) * [24, 24, 0] + [0, 0, z] for z in (0, 2.8)]
    for k in range(7):
        wall = rng.random((6000, 3)) * [0, 24, 2.8] + [4 * k, 0, 0]
        parts += [wall, wall[:, [1, 0, 2]]]
    coord = np.concatenate(parts).astype(np.float32)
    coord += rng.normal(0, 0.003, coord.shape).astype(np.float32)
    kept = below_ceiling(coord)
    assert not kept[coord[:, 2] > 2.78].any() and kept[coord[:, 2] < 2.5].all()


def test_what_is_no_ceiling_stays():
    rng = np.random.default_rng(0)
    table = rng.random((5000, 3)) * [1.5, 1, 0.01] + [0, 0, 0.7]
    trees = rng.random((5000, 3)) * [40, 40, 9]
    hills = rng.random((5000, 3)) * [400, 400, 1]
    hills[:, 2] += 20 * np.sin(hills[:, 0] / 40)
    for coord in (room(ceiling=False), table, hills, trees[:50]):
        assert below_ceiling(coord.astype(np.float32)).all()


@pytest.mark.parametrize(
    ("up", "turned"),
    [("z", [1, 2, 3]), ("-z", [1, -2, -3]), ("y", [1, -3, 2]), ("-y", [1, 3, -2])],
)
def test_the_axis_that_points_up_can_be_chosen(up, turned):
    np.testing.assert_array_equal(upright(np.array([[1.0, 2, 3]]), up)[0], turned)


@pytest.mark.parametrize("up", ["x", "-x", "y", "-y", "z", "-z"])
def test_turning_upright_mirrors_nothing(up):
    turned = upright(np.eye(3), up)
    assert np.linalg.det(turned) == pytest.approx(1)
    axis = np.eye(3)["xyz".index(up[-1])] * (-1 if up.startswith("-") else 1)
    np.testing.assert_array_equal(upright(axis[None], up)[0], [0, 0, 1])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"colors": np.zeros((2, 3))}, "'colors'"),
        ({"coord": np.zeros((3, 2))}, "'coord'"),
        ({"viewpoint": "below"}, "'viewpoint'"),
        ({"up": "w"}, "'up'"),
        ({"size": (0, 3)}, "'size'"),
    ],
)
def test_what_cannot_be_drawn_is_refused(changes, named):
    given = {"coord": np.zeros((3, 3), np.float32), "colors": np.zeros((3, 3))} | changes
    with pytest.raises(ValueError, match=named):
        render(**given)
