"""examples/plugin.py through the real commands; a model's file alone never imports anything."""

from __future__ import annotations

import shutil
import sys

import laspy
import numpy as np
import pytest

from pointseg.cli.predict import main as predict
from pointseg.cli.test import main as score
from pointseg.cli.train import main as train
from pointseg.files import write_cloud
from tests import ROOT

NET, DATA = "copied_plugin:CellNet", "copied_plugin:Hills"


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """The current folder, with a copy of the example and a model of it."""
    shutil.copy(ROOT / "examples" / "plugin.py", tmp_path / "copied_plugin.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    words = ["--dataset", DATA, "--backbone", NET, "--device", "cpu", "--workers", "0"]
    short = ["epochs=2", "evaluations=1", "optimizer.lr=0.01", "backbone_config.width=8"]
    assert (
        train([*words, *(w for each in short for w in ("--override", each)), "--out", "run"]) == 0
    )
    yield tmp_path
    sys.modules.pop("copied_plugin", None)


def test_train_test_and_predict(trained, capsys):
    model = ["-m", "run/best.pt", "--device", "cpu"]
    words = [*model, "--backbone", NET]
    assert score([*words, "--dataset", DATA, "--single-pass", "--pictures", "1"]) == 0
    assert "1 scenes, 3,000 points" in capsys.readouterr().out
    scene = sys.modules["copied_plugin"].Hills().load("val", "e")
    write_cloud(trained / "hills.las", scene)
    assert predict(["hills.las", *words, "-o", "out", "--no-pictures"]) == 0
    assert len(laspy.read(trained / "out" / "hills.las")["pointseg_class"]) == 3000
    # without its name nothing is imported, and one line says what to give
    del sys.modules["copied_plugin"]
    for other in ([], ["--backbone", "minkunet"]):
        capsys.readouterr()
        assert predict(["hills.las", *model, *other, "-o", "again"]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1 and NET in printed and "run/best.pt" in printed
    assert "copied_plugin" not in sys.modules
    # a class that was moved is loaded under its new name
    (trained / "copied_plugin.py").rename("moved_plugin.py")
    moved = ["--backbone", "moved_plugin:CellNet", "-o", "moved.las", "--no-pictures"]
    assert predict(["hills.las", *model, *moved]) == 0
    np.testing.assert_array_equal(
        *(laspy.read(path)["pointseg_class"] for path in ("moved.las", "out/hills.las"))
    )


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--dataset", "lost_plugin:Hills"], "lost_plugin"),
        (["--dataset", "synthetic", "--backbone", "lost_plugin:Net"], "lost_plugin"),
        (["--dataset", "json:JSONDecoder"], "splits()"),
        (["--dataset", "synthetic", "--backbone", "torch.nn:Linear"], "'in_channels'"),
        (["--dataset", "scannet", "--backbone", "a:B", "--model-size", "small"], "--model-size"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, words, named):
    assert train([*words, "--device", "cpu", "--workers", "0", "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and named in printed
