"""What all points of a file decide together, found in pieces: what reading the file at once finds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pointseg.files import in_pieces, read_cloud, read_scaled
from pointseg.files.columns.origin import STEP
from pointseg.files.columns.to_scene import scene_of
from pointseg.prediction.streaming import survey as module
from pointseg.prediction.streaming.survey import survey


def table(xyz):
    columns = {"x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2]}
    rows = np.empty(len(xyz), [(name, v.dtype) for name, v in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    return rows


@pytest.mark.parametrize(
    "middle", [(431_246.0, 431_250.5), (431_249.0, 431_253.0), (-3e7, -2.9e7), (12.0, 13.0)]
)
def test_origins_whose_middle_points_round_differently(tmp_path, monkeypatch, middle):
    monkeypatch.setattr(module, "PIECE", 30)
    rng = np.random.default_rng(0)
    x = np.concatenate([middle, middle[0] - rng.random(99) * 400, middle[1] + rng.random(99) * 400])
    xyz = np.stack([x, rng.random(200) * 50, rng.random(200)], 1)
    xyz[5], xyz[150] = [np.nan, 1, 2], [np.nan, 3, 4]  # one on each side: the middle stays
    xyz[6] = [middle[0], np.inf, 2]
    np.save(tmp_path / "a.npy", table(xyz))
    scene = read_cloud(tmp_path / "a.npy")
    found = survey(tmp_path / "a.npy", in_pieces(tmp_path / "a.npy"))
    np.testing.assert_array_equal(found.scales.origin, scene.origin)
    coord = scene.coord[np.isfinite(scene.coord).all(1)]
    assert found.finite == len(coord) and (found.scales.origin[0] % STEP == 0)
    np.testing.assert_array_equal(found.low, coord.min(0))
    np.testing.assert_array_equal(found.high, coord.max(0))


def float_color(count):
    color = np.random.default_rng(1).normal(0.5, 0.2, (count, 3)).astype(np.float32)
    color[7] = np.nan
    return color


@pytest.mark.parametrize(
    "fields",
    [
        {"intensity": np.arange(500, dtype=np.uint16) * 9},
        {"intensity": np.arange(-250, 250, dtype=np.int32) * 8},
        {"intensity": np.r_[np.linspace(-90, -3, 499), np.nan]},
        {"intensity": np.zeros(500, np.uint8), "normal": np.zeros((500, 3))},
        {"color": np.r_[np.full((499, 3), 200), [[255, 257, 256]]].astype(np.uint16)},
        {"color": float_color(500), "return_number": np.zeros(500), "number_of_returns": np.ones(500)},
        {f"f_dc_{k}": float_color(500)[:, k] * 9 for k in range(3)},
    ],
    ids=["u2", "signed", "decibels", "unfilled", "colours", "floats", "gaussians"],
)  # fmt: skip
def test_values_in_pieces_are_understood_as_those_of_the_whole(tmp_path, monkeypatch, fields):
    monkeypatch.setattr(module, "PIECE", 70)
    (tmp_path / "a").mkdir()
    for name, values in {"coord": np.random.default_rng(0).random((500, 3)), **fields}.items():
        np.save(tmp_path / "a" / f"{name}.npy", values)
    scene, scales = read_scaled(tmp_path / "a")
    pieces = in_pieces(tmp_path / "a")
    found = survey(tmp_path / "a", pieces).scales
    assert replace(found, origin=None) == replace(scales, origin=None)
    parts = [scene_of(tmp_path / "a", part, name="a", scales=found) for part in pieces.read(70)]
    assert all(part.fields.keys() == scene.fields.keys() for part in parts)
    for name, values in scene.fields.items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), values)


def test_a_sample_holds_no_more_than_its_own_points(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 10)
    np.save(tmp_path / "a.npy", table(np.random.default_rng(0).random((1000, 3))))
    pieces = in_pieces(tmp_path / "a.npy")
    look = module._Look(tmp_path / "a.npy", pieces)
    look.add(module.fields_in(tmp_path / "a.npy", next(pieces.read(1000))))
    assert len(look.sample[-1]) == 10 and look.sample[-1].base is None
