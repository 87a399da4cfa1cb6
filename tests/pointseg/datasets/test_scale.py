"""Units that do not fit the voxels give themselves away; what fits is left alone."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.datasets.scale import check_scale, point_spacing
from pointseg.datasets.synthetic.dataset import Synthetic
from pointseg.files import finite_points, read_cloud
from pointseg.scene import Scene


@pytest.fixture(scope="module")
def room():
    return Synthetic().load("train", "room0000000")


def scaled(scene, factor):
    return scene.moved(scene.coord * np.float32(factor))


def found(scene, voxel_m):
    """What is doubtful, in words."""
    doubt = check_scale(scene, voxel_m)
    return "" if doubt is None else doubt.found


def test_a_room_fits(room):
    for voxel_m in (0.02, 0.04, 0.1):
        assert check_scale(room, voxel_m) is None


@pytest.mark.parametrize("factor", [100, 1000])
def test_millimetres_under_metres(room, factor):
    doubt = check_scale(scaled(room, factor), 0.02)
    assert doubt is not None and doubt.unit == "millimetre" and "were millimetres" in doubt.found


@pytest.mark.parametrize("factor", [0.001, 0.01])
def test_kilometres_and_unit_cubes(room, factor):
    doubt = check_scale(scaled(room, factor), 0.02)
    assert doubt is not None and doubt.unit == "metre" and "too few for a network" in doubt.found


def test_a_large_but_dense_cloud_fits():
    # A corridor of 100 m, a point every 2 cm: 5000 voxels, neighbours one voxel apart.
    x = np.arange(0, 100, 0.02, dtype=np.float32)
    coord = np.stack(np.meshgrid(x, np.arange(4) * 0.02, [0]), axis=-1).reshape(-1, 3)
    assert check_scale(Scene(coord=coord.astype(np.float32)), 0.02) is None


def test_a_handful_of_points_says_nothing():
    assert check_scale(Scene(coord=np.zeros((99, 3), np.float32)), 0.02) is None
    assert check_scale(Scene(coord=np.full((200, 3), np.nan, np.float32)), 0.02) is None


def test_points_at_one_place():
    assert "spans 0 m" in found(Scene(coord=np.zeros((200, 3), np.float32)), 0.02)


def test_spacing_by_hand():
    grid = np.stack(np.meshgrid(*[np.arange(8) * 0.5] * 3), axis=-1).reshape(-1, 3)
    assert point_spacing(grid.astype(np.float32)) == 0.5
    assert point_spacing(np.repeat(grid, 3, axis=0).astype(np.float32)) == 0.5  # doubles count once
    assert point_spacing(np.zeros((5, 3), np.float32)) == float("inf")


def test_huge_positions_do_not_overflow():
    coord = np.zeros((200, 3), np.float32)
    coord[::2] = 3e38
    coord[1::4] = -3e38
    assert "spans 6e+38 m" in found(Scene(coord=coord), 0.02)


@pytest.mark.parametrize(
    ("file", "voxel_m"),
    [
        ("semantickitti_scan/000000.bin", 0.05),
        ("lidr_als/Megaplot.laz", 0.5),
        ("lidr_als/Topography.laz", 1.0),
        ("tabletop_rgbd/train/learn0.pcd", 0.005),
    ],
)
def test_real_clouds_fit_and_their_millimetres_do_not(shared, file, voxel_m):
    scene, _ = finite_points(read_cloud(shared / "data/points" / file))
    assert check_scale(scene, voxel_m) is None
    assert "millimetres" in found(scaled(scene, 1000), voxel_m)


def lonlat(seed=0, outlier=True):
    """A tile of 40 m in degrees, with a point at zero, as programs leave them."""
    rng = np.random.default_rng(seed)
    coord = rng.random((500, 3)) * [4e-4, 4e-4, 4] + [11.5, 48.1, 500]
    coord[7] *= 0 if outlier else 1
    return Scene(coord=coord.astype(np.float32), name="tile")


def test_degrees_are_known_by_their_size():
    doubt = check_scale(lonlat(), 0.2)
    assert doubt is not None and doubt.unit is None and "x and y look like degrees" in doubt.found
    assert "degrees" in found(lonlat(outlier=False), 0.02)
    tile = lonlat(outlier=False).coord
    tower = (tile - tile.min(0)) * np.float32([2e4, 2e4, 8])  # 8 m wide, 32 m high
    assert check_scale(Scene(coord=tower), 0.2) is None
    east = tile + np.float32([400, 0, 0])
    assert check_scale(Scene(coord=east), 0.2) is None  # no longitude
