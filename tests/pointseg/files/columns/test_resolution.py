"""Positions that a file holds too coarsely."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import read_cloud, write_cloud
from pointseg.files.columns.origin import split_origin
from pointseg.files.columns.resolution import position_steps, resolution_notes
from pointseg.scene import Scene

UTM = np.array([690_000.0, 5_330_000.0, 500.0])


def scene(xyz):
    coord, origin = split_origin(xyz)
    return Scene(coord=coord, origin=origin)


def utm(seed=0):
    return UTM + np.random.default_rng(seed).random((500, 3)) * [80, 60, 9]


@pytest.mark.parametrize(
    ("xyz", "steps"),
    [
        (utm().astype(np.float32), (0.0625, 0.5, 0)),
        (utm().astype(np.float32).astype(np.float64), (0.0625, 0.5, 0)),  # too late
        (utm(), (0, 0, 0)),
        (np.round(utm(), 3), (0, 0, 0)),
        (np.round(utm(), 2), (0, 0, 0)),
        (np.round(utm(), 1), (0.1, 0.1, 0)),
        (np.array([[float(f"{v:g}") for v in row] for row in utm()]), (1.0, 10.0, 0)),  # six digits
        (utm()[:10].astype(np.float32), (0, 0, 0)),  # by chance
        ((utm() - UTM).astype(np.float32), (0, 0, 0)),
    ],
)
def test_steps(xyz, steps):
    assert position_steps(scene(xyz)).tolist() == list(steps)


def test_what_is_said_depends_on_the_voxels_and_the_unit():
    coarse = scene(utm().astype(np.float32))
    (note,) = resolution_notes(coarse, 1.0, 0.2)
    assert "(0.062 m in x, 0.5 m in y)" in note and "export it again with double precision" in note
    assert resolution_notes(coarse, 1.0, 6.0) == []
    assert resolution_notes(coarse, (0.001, 0.001, 1.0), 0.2) == []


@pytest.mark.parametrize("suffix", [".ply", ".pcd", ".npy"])
def test_the_types_that_hold_float32(tmp_path, suffix):
    write_cloud(tmp_path / f"a{suffix}", Scene(coord=utm().astype(np.float32)))
    assert position_steps(read_cloud(tmp_path / f"a{suffix}")).tolist() == [0.0625, 0.5, 0]
    write_cloud(tmp_path / f"b{suffix}", scene(utm()))
    assert not position_steps(read_cloud(tmp_path / f"b{suffix}")).any()


def test_the_case(shared):
    folder = shared / "cases/points/utm_float32"
    assert position_steps(read_cloud(folder / "utm_float32.ply")).max() == 0.5
    assert not position_steps(read_cloud(folder / "utm_double.ply")).any()
