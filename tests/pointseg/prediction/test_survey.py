"""What all points of a file decide together, found in pieces: what reading the file at once finds."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files import in_pieces, read_cloud
from pointseg.files.columns import file_strength, usual_strength
from pointseg.files.origin import STEP
from pointseg.prediction import survey as module
from pointseg.prediction.survey import survey


def table(xyz, intensity=None):
    columns = {"x": xyz[:, 0], "y": xyz[:, 1], "z": xyz[:, 2]}
    if intensity is not None:
        columns["intensity"] = intensity
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
    found = survey(
        tmp_path / "a.npy", in_pieces(tmp_path / "a.npy"), intensity_max=None, strengths=False
    )
    np.testing.assert_array_equal(found.scales.origin, scene.origin)
    coord = scene.coord[np.isfinite(scene.coord).all(1)]
    assert found.finite == len(coord) and (found.scales.origin[0] % STEP == 0)
    np.testing.assert_array_equal(found.low, coord.min(0))
    np.testing.assert_array_equal(found.high, coord.max(0))


@pytest.mark.parametrize(
    "intensity",
    [
        np.arange(500, dtype=np.uint16) * 9,
        np.arange(500, dtype=np.int32) * 90,
        np.linspace(0, 1, 500, dtype=np.float32),
        np.r_[np.linspace(0, 700, 499), np.nan],
    ],
    ids=["u2", "i4", "f4", "f8"],
)
def test_the_usual_intensity(tmp_path, monkeypatch, intensity):
    monkeypatch.setattr(module, "PIECE", 70)
    path = tmp_path / "a.npy"
    np.save(path, table(np.random.default_rng(0).random((500, 3)), intensity))
    scene = read_cloud(path)
    found = survey(path, in_pieces(path), intensity_max=None, strengths=True)
    assert found.usual_strength == usual_strength(file_strength(scene))
    np.testing.assert_array_equal(
        np.clip(np.nan_to_num(intensity.astype(np.float32)) / np.float32(found.scales.intensity_max), 0, 1),
        scene["strength"][:, 0],
    )  # fmt: skip


def test_a_sample_holds_no_more_than_its_own_points(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 10)
    np.save(tmp_path / "a.npy", table(np.random.default_rng(0).random((1000, 3))))
    pieces = in_pieces(tmp_path / "a.npy")
    look = module._Look(tmp_path / "a.npy", pieces)
    look.add(module.measured_columns(tmp_path / "a.npy", next(pieces.read(1000))), False)
    assert len(look.sample[-1]) == 10 and look.sample[-1].base is None
