"""Heights above the ground, on terrain that is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator

from pointseg.files import read_cloud
from pointseg.geometry import areas, ground
from pointseg.geometry import ground_surface as surface
from pointseg.geometry.ground import height_above_ground
from pointseg.geometry.ground_surface import ground_surface


def terrain(slope):
    """Ground points of a plane, and points of a house of 12 m and a tree on it, with their true height."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 80, (40_000, 2))
    house = (np.abs(xy - 40) < 6).all(1)
    tree = np.linalg.norm(xy - [60, 20], axis=1) < 3
    height = np.where(house, 7.0, 0) + np.where(tree, rng.uniform(0, 9, len(xy)), 0)
    coord = np.column_stack([xy, slope * xy[:, 0] + height])
    kept = xy[:, 1] < 64  # x and y differ in length
    return coord[kept].astype(np.float32), height[kept], house[kept]


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.3])
def test_a_house_stands_on_its_ground_and_slopes_are_no_height_also_at_the_edges(slope):
    coord, height, house = terrain(slope)
    found = height_above_ground(coord)
    assert found.shape == (len(coord), 1) and found.dtype == np.float32
    # The lowest points of a tree may count as ground, below 0.75 m; cells around it see that.
    tree = np.linalg.norm(coord[:, :2] - [60, 20], axis=1) < 4.5
    np.testing.assert_allclose(found[~tree, 0], height[~tree], atol=0.01 + 1.6 * slope)
    np.testing.assert_allclose(found[tree, 0], height[tree], atol=0.76 + 1.6 * slope)
    assert np.median(found[house]) == pytest.approx(7, abs=0.01 + slope)


def plane(side=14, slope=0.25, rows=17):
    return np.broadcast_to(slope * np.arange(side, dtype=np.float32), (rows, side)).copy()


def test_what_stands_on_a_slope_holes_and_pits_are_bridged_by_straight_lines():
    lowest = plane()
    lowest[4:7, 5:8] += 3  # a house of 3 x 3 cells, which a window of 5 cells takes away
    lowest[0:2, 10:12] += 2  # and one at the edge of the cloud, between ground on both sides
    lowest[9, 2], lowest[12, 6] = np.inf, -40.0  # nothing measured; an echo from below the ground
    lowest[3, 13] = lowest[16, 4] = np.inf  # and at two edges
    np.testing.assert_allclose(ground_surface(lowest, 1.0), plane(), atol=1e-5)


def test_ground_seen_in_few_cells_below_trees_is_no_pit():
    rng = np.random.default_rng(0)
    lowest = (plane(40, rows=40) + rng.uniform(8, 12, (40, 40))).astype(np.float32)
    seen = rng.random((40, 40)) < 0.14
    lowest[seen] = plane(40, rows=40)[seen]
    pit = np.s_[20:22, 20:22]  # echoes from below the ground, next to each other: no company
    lowest[pit] = -40.0
    error = np.abs(ground_surface(lowest, 1.0) - plane(40, rows=40))
    assert error.mean() < 0.1 and error[seen].max() < 1.5 and error[pit].max() < 1


@pytest.mark.parametrize(
    ("side", "rise", "cell_m", "is_ground"),
    [
        (1, 0.7, 1, True),  # SLOPE times the 2 m by which a window grows, and STEP_M: 0.75 m
        (1, 0.8, 1, False),
        (1, 1.3, 2, True),  # 4 m: 1.35 m
        (1, 1.4, 2, False),
        (14, 9.0, 4, False),  # windows end at 2 x 7 + 1 cells of 4 m, WINDOW_M
        (15, 9.0, 4, True),
        (1, -19.0, 4, True),  # PIT_SLOPE times 4 m
        (1, -21.0, 4, False),
    ],
)
def test_what_is_ground_by_hand(side, rise, cell_m, is_ground):
    lowest = np.zeros((40, 37), np.float32)
    lowest[12 : 12 + side, 12 : 12 + side] = rise
    assert ground_surface(lowest, cell_m)[13 if side > 1 else 12, 12] == pytest.approx(
        rise if is_ground else 0
    )


@pytest.mark.parametrize(("company", "is_ground"), [(2, False), (3, True)])
def test_a_low_cell_with_company_is_ground(company, is_ground):
    """PIT_COMPANY cells as low around it, none of them its neighbour."""
    lowest = np.full((20, 20), 10, np.float32)
    for row, column in ((10, 10), (10, 13), (13, 10), (7, 10))[: company + 1]:
        lowest[row, column] = 0
    assert ground_surface(lowest, 1.0)[10, 10] == (0 if is_ground else 10)


def test_shorter_lines_count_more_and_cells_beyond_all_lines_are_as_the_nearest():
    lowest = np.full((5, 5), np.inf, np.float32)
    lowest[2, [1, 3]] = 0.0, 0.2  # the line of a gap of 2 gives 0.1 in the middle
    lowest[[0, 4], 2] = 0.5, 0.5  # that of a gap of 4 gives 0.5
    found = ground_surface(lowest, 1.0)
    assert found[2, 2] == pytest.approx((0.1 / 2 + 0.5 / 4) / (1 / 2 + 1 / 4))
    assert found[2, 0] == 0 and found[0, 0] == 0.5


def test_rows_are_filled_in_blocks_as_at_once(monkeypatch):
    lowest = np.random.default_rng(0).uniform(0, 0.2, (13, 9)).astype(np.float32)
    lowest[2:9, 3:6] = np.inf
    wanted = ground_surface(lowest, 1.0)
    monkeypatch.setattr(surface, "ROWS", 3)
    np.testing.assert_array_equal(ground_surface(lowest, 1.0), wanted)


def test_wide_clouds_have_larger_cells_and_gaps_are_filled(monkeypatch):
    monkeypatch.setattr(ground, "MOST_CELLS", 100)
    x, y = (values.ravel() for values in np.meshgrid([0, 90, 180], [0, 90, 180]))
    wide = np.stack([x, y, 5 + x * y / 32_400], 1).astype(np.float32)
    corners = [0, 2, 6, 8]
    assert np.abs(height_above_ground(wide)[corners]).max() < 1e-5
    stone = np.append(wide, [[88, 90, 9]], axis=0).astype(np.float32)
    assert height_above_ground(stone)[-1] > 3, "in a cell of 18 m with another point"
    assert height_above_ground(wide[:0]).shape == (0, 1)
    assert height_above_ground(wide[:1]).tolist() == [[0]]


@pytest.mark.parametrize(
    "row", [(20_000, 20_000, 50), (-4.5e5, -5.4e6, -100), (40, 900, 3), (1e30, -3e38, 0)]
)
def test_a_far_point_has_ground_of_its_own_and_changes_no_other_height(monkeypatch, row):
    monkeypatch.setattr(ground, "MOST_CELLS", 10_000)
    coord = terrain(0.1)[0][::8]
    found = height_above_ground(np.insert(coord, 17, row, axis=0))
    assert found[17] == 0
    np.testing.assert_array_equal(np.delete(found, 17, axis=0), height_above_ground(coord))


def test_areas_that_lie_apart_have_the_heights_that_they_have_alone(monkeypatch):
    """A ring around a house on its slope, and the same house elsewhere; points come in any order, in many pieces."""
    monkeypatch.setattr(surface, "WINDOW_M", 10.0)
    monkeypatch.setattr(areas, "BLOCK_M", 20.0)
    house = terrain(0.1)[0][::8]
    around = np.linspace(0, 2 * np.pi, 300, endpoint=False)
    ring = np.stack([40 + 100 * np.cos(around), 32 + 100 * np.sin(around), around], 1)
    parts = [house, house + np.float32([3000, -2000, 7]), ring.astype(np.float32)]
    order = np.random.default_rng(0).permutation(sum(map(len, parts)))
    wanted = np.concatenate([height_above_ground(part) for part in parts])[order]
    monkeypatch.setattr(ground, "AT_ONCE", 1000)
    found = height_above_ground(np.concatenate(parts)[order])
    np.testing.assert_array_equal(found, wanted)


def test_cells_of_all_areas_together_are_bounded(monkeypatch):
    monkeypatch.setattr(ground, "MOST_CELLS", 400)
    wide = np.array([[9, 9], [19, 19], [39, 79], [0, 0]], float)  # 100, 400, 3200 and 1 m2
    sides = ground._cell_sides(wide)
    assert ((wide + 1) / sides[:, None]).prod(1).sum() == pytest.approx(400)
    assert sides[0] == sides[1] == sides[3] == pytest.approx((901 / 400) ** 0.5)
    assert sides[2] == pytest.approx(sides[0] * 8**0.5)
    assert ground._cell_sides(wide[:2] - [1, 3]).tolist() == [1, 1]  # 9 x 7 + 19 x 17


def test_heights_of_a_real_tile_are_those_above_its_labelled_ground(shared):
    """Measured: 0.08 m."""
    tile = read_cloud(shared / "data/points/ign_lidar/77050_627755_LA93_IGN69.laz")
    is_ground = tile["classification"].reshape(-1) == 2
    truth = LinearNDInterpolator(tile.coord[is_ground, :2], tile.coord[is_ground, 2])
    error = height_above_ground(tile.coord)[:, 0] - (tile.coord[:, 2] - truth(tile.coord[:, :2]))
    assert np.sqrt(np.nanmean(error**2)) < 0.1 and np.isfinite(error).mean() > 0.95


def test_records_hold_every_number_of_the_filter():
    numbers = {
        name: value
        for each in (ground, surface, areas)
        for name, value in vars(each).items()
        if name.isupper()
    }
    del numbers["ROWS"], numbers["AT_ONCE"]  # how many are filled or looked at changes nothing
    assert ground.ground_settings() == {name.lower(): value for name, value in numbers.items()}
