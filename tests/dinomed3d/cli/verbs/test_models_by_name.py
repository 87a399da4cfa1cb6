"""Commands and functions that take a model take its name on the hub."""

from __future__ import annotations

import argparse

import pytest

import dinomed3d
import pointseg
from dinomed3d.cli.main import main
from dinomed3d.hub.local_model import VOLUME, local_model
from dinomed3d.inference.cohort.outputs.describe import describe_model
from dinomed3d.inference.models.model import open_model
from dinomed3d.inference.models.package import package_model
from dinomed3d.runtime.errors import UserError
from pointseg.cli import predict, test, train
from pointseg.cli.initial_weights import open_start
from tests.dinomed3d.inference.fake_models import write_model
from tests.hub import hub  # noqa: F401
from tests.pointseg.tiny import CLASSES, RECIPE

MISSING = "hf:us/missing"


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (main, ["inspect", MISSING]),
        (main, ["package", MISSING, "-o", "OUT.zip"]),
        (main, ["export", MISSING, "-o", "OUT.onnx"]),
        (main, ["predict", "-i", "IN", "-o", "OUT", "-m", MISSING]),
        (main, ["predict", "-i", "IN", "-o", "OUT", "-m", "here.zip", "--localizer", MISSING]),
        (predict.main, ["IN.ply", "-o", "OUT", "-m", MISSING]),
        (test.main, ["-o", "OUT", "-m", MISSING, "--dataset", "synthetic"]),
        (train.main, ["--out", "OUT", "--init", MISSING, "--dataset", "synthetic"]),
    ],
)
def test_commands_look_on_the_hub(hub, tmp_path, monkeypatch, capsys, run, words):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    assert run(words) == 2
    error = capsys.readouterr().err
    assert "us/missing: there is no such repository" in error
    assert error.count("\n") == 1


def test_volumes_and_what_is_said_of_them(hub, tmp_path, capsys):  # noqa: F811
    packed = package_model(write_model(tmp_path / "m", folds=("0",)), tmp_path / "m.zip")
    commit = hub.add("us/tiny", {"model.zip": packed.read_bytes(), "b.zip": packed.read_bytes()})
    assert main(["inspect", "hf:us/tiny"]) == 0
    assert f"hf:us/tiny@{commit} (package)" in capsys.readouterr().out
    files = {name: local_model(name, VOLUME) for name in ("hf:us/tiny", "hf:us/tiny/b.zip")}
    hub_names = [describe_model(open_model(file))["hub"] for file in files.values()]
    assert hub_names == [f"hf:us/tiny@{commit}", f"hf:us/tiny@{commit}/b.zip"]
    assert [local_model(name, VOLUME) for name in hub_names] == list(files.values())
    assert "hub" not in describe_model(open_model(packed))
    assert dinomed3d.load_model("hf:us/tiny", device="cpu").labels.keys() == {"a", "b"}


def test_clouds(hub, tmp_path):  # noqa: F811
    from pointseg.models.checkpoint import save_checkpoint
    from pointseg.models.network import build_segmenter

    file = tmp_path / "best.pt"
    weights = build_segmenter(RECIPE, 2).state_dict()
    save_checkpoint(file, weights, recipe=RECIPE, classes=CLASSES)
    hub.add("us/boxes", {"model.pt": file.read_bytes()})
    assert pointseg.load_model("hf:us/boxes", device="cpu").classes == CLASSES.names
    arguments = argparse.Namespace(backbone="minkunet", init="hf:us/boxes", resume=False)
    assert open_start(arguments, tmp_path).recipe == RECIPE


def test_results_of_a_test_never_go_into_the_cache(hub, capsys):  # noqa: F811
    assert test.main(["-m", "hf:us/boxes", "--dataset", "synthetic"]) == 2
    assert "--out" in capsys.readouterr().err
    assert hub.asked == []


def test_a_model_of_the_other_kind(hub):  # noqa: F811
    hub.add("us/boxes", {"model.pt": b""})
    with pytest.raises(UserError, match="pointseg-predict"):
        dinomed3d.load_model("hf:us/boxes")
