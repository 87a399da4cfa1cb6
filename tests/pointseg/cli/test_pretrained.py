"""The commands with pretrained 3D encoders: from a published file to predictions, and what they refuse."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import pointseg.datasets as datasets
from pointseg.cli import predict, test, train
from pointseg.evaluation import visualize_predictions
from pointseg.files import read_cloud, write_cloud
from pointseg.models.trained_model import load_model
from pointseg.scene import Scene
from tests.pointseg.tiny import Boxes
from tests.pointseg.tiny_encoders import write_encoder

CHANGES = ["voxel_m=0.1", "epochs=1", "evaluations=1", "batch_size=1", "mix3d=0"]
DATA = ["--dataset", "scannet", "--workers", "0", "--device", "cpu"]
RUN = [*DATA, *(word for change in CHANGES for word in ("--override", change))]
LICENCE = "CC-BY-NC 4.0"


@dataclass(frozen=True)
class Rooms(Boxes):
    """Boxes whose points have normals, as ScanNet's do."""

    count: int = 2
    validated: int = 1
    fields: frozenset[str] = frozenset({"color", "normal"})

    def load(self, split: str, scene: str) -> Scene:
        found = super().load(split, scene)
        return found.with_fields(normal=np.tile(np.float32([0, 0, 1]), (len(found), 1)))


@pytest.fixture(autouse=True)
def rooms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "open_dataset", lambda *_, **__: Rooms())
    monkeypatch.setattr(visualize_predictions, "draw_predictions", lambda *_, **__: [])


def test_from_a_published_file_to_predictions(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    weights, out = tmp_path / "sonata.pth", tmp_path / "run"
    write_encoder(weights)
    words = [*RUN, "--backbone", "sonata", "--tune", "decoder", "--out", str(out)]
    assert train.main([*words, "--init", str(weights)]) == 0
    said = capsys.readouterr().err
    assert "the decoder is new" in said and "parameters are trained" in said
    assert (said + caplog.text).count(LICENCE) == 1  # once
    weights.unlink()  # nothing needs it from now on
    last = (out / "last.pt").read_bytes()
    assert train.main([*words, "--resume"]) == 0
    _, trained = load_model(out / "last.pt", "cpu")
    assert trained.recipe.features == ("coord", "color", "normal")
    assert trained.recipe.tune == "decoder" and LICENCE in trained.recipe.licence
    assert len((out / "last.pt").read_bytes()) == len(last)

    room = Rooms().load("val", "val0").without("segment", "normal")
    coord = room.coord + np.float32([20, -30, 5])
    write_cloud(tmp_path / "room.ply", Scene(coord, {"color": room["color"]}))
    capsys.readouterr()
    model = ["-m", str(out / "best.pt")]
    result = ["-o", str(tmp_path / "out"), "--no-pictures", "--device", "cpu"]
    assert predict.main([str(tmp_path / "room.ply"), *model, *result]) == 0
    said = capsys.readouterr().err
    assert LICENCE in said and "has no normals; they were estimated" in said
    found = read_cloud(tmp_path / "out" / "room.ply")
    np.testing.assert_allclose(found.coord + found.origin, coord, atol=1e-5)  # the file's own
    assert set(np.unique(found["class"])) <= {0, 1}
    words = [*model, *DATA[:2], "--device", "cpu", "--single-pass", "--pictures", "0"]
    assert test.main([*words, "--out", str(tmp_path / "test")]) == 0
    assert LICENCE in capsys.readouterr().err


def test_the_scale_follows_the_voxels_unless_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_encoder(tmp_path / "utonia.pth", "utonia")
    words = [*RUN, "--backbone", "utonia", "--init", str(tmp_path / "utonia.pth"), "--show-recipe"]
    assert train.main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["input"]["scale"] == 0.1 and shown["voxel_m"] == 0.1  # cells of 0.01 units
    assert train.main([*words, "--override", "input.scale=0.5"]) == 0
    assert json.loads(capsys.readouterr().out)["input"]["scale"] == 0.5
    # a recipe can be looked at without weights
    bare = [*DATA, "--backbone", "utonia", "--tune", "linear", "--show-recipe"]
    assert train.main(bare) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["tune"], shown["input"]["scale"], shown["voxel_m"]) == ("linear", 0.5, 0.02)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--backbone sonata", "--backbone sonata: is a pretrained encoder; give the file"),
        ("--backbone ptv3 --tune linear", "--tune linear: what is not trained would stay random"),
        ("--backbone utonia --init sonata.pth", "holds weights of sonata, this run has"),
        ("--backbone sonata --init none.pth", "--init none.pth: there is no such file"),
        ("--backbone sonata --init sonata.pth --model-size base", "--model-size base: sonata.pth"),
        ("--backbone sonata --init sonata.pth --resume", "--init: is for a new run"),
        ("--backbone sonata --init sonata.pth --override features=color", "read 9 channels"),
    ],
)
def test_mistakes_are_one_line(
    words: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    write_encoder(tmp_path / "sonata.pth")
    assert train.main([*RUN, *words.split()]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "licence" not in line]
    assert len(lines) == 1 and lines[0].startswith("pointseg-train: ") and message in lines[0]
    assert not list(tmp_path.rglob("*.pt"))
