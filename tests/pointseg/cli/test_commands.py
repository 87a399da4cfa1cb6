"""pointseg-test and pointseg-predict with the real networks, from their files of weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pointseg.cli.predict import main as predict
from pointseg.cli.test import main as evaluate
from pointseg.config.presets import recipe_for
from pointseg.config.recipe import InferenceConfig
from pointseg.datasets.classes import ClassList
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.files import read_cloud, write_cloud
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.models.trained_model import load_model
from pointseg.scene import IGNORE, Scene

BACKBONES = ("ptv3", "minkunet", "pointnext")
CLASSES = ClassList(names=("low", "high"), colors=np.array([[200, 60, 0], [0, 60, 200]], np.uint8))


@pytest.fixture(scope="module", params=BACKBONES)
def weights(request, tmp_path_factory):
    """A network that nobody has trained."""
    recipe = replace(recipe_for("folder", request.param, "small"), features=("color",), voxel_m=0.2)
    torch.manual_seed(0)
    model = build_segmenter(recipe, len(CLASSES))
    path = tmp_path_factory.mktemp(request.param) / "best.pt"
    save_checkpoint(path, model.state_dict(), recipe=recipe, classes=CLASSES)
    return path


def room(count=800, seed=0):
    rng = np.random.default_rng(seed)
    coord = (rng.random((count, 3)) * [3, 2, 1]).astype(np.float32)
    color = rng.integers(0, 255, (count, 3)).astype(np.float32)
    segment = (coord[:, 2] > 0.5).astype(np.int32)
    return Scene(coord=coord, fields={"color": color, "segment": segment})


DESCRIPTION = """
classes: [low, high]
features: [color]
voxel_m: 0.2
splits: {test: ['*.ply']}
"""


def test_a_folder_is_tested_and_one_of_its_clouds_predicted(weights, tmp_path, capsys):
    for number in range(2):
        write_cloud(tmp_path / f"{number}.ply", room(seed=number))
    (tmp_path / "dataset.yaml").write_text(DESCRIPTION)
    out = tmp_path / "test"
    common = ["-m", str(weights), "-o", str(out)]
    assert (
        evaluate([*common, "--dataset", "folder", "--root", str(tmp_path), "--pictures", "1"]) == 0
    )
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["labelled_points"] == 1600 and 0 <= metrics["test_point_miou"] <= 1
    source = tmp_path / "cloud.ply"
    write_cloud(source, room().without("segment"))
    assert predict([str(source), "-m", str(weights), "-o", str(tmp_path / "out"), "--tta"]) == 0
    found = read_cloud(tmp_path / "out" / "cloud.ply")["class"]
    # The same cloud in the same way: what was tested is what is predicted.
    np.testing.assert_array_equal(found, np.load(out / "labels" / "test" / "0.npy"))
    capsys.readouterr()


def predictor_of(weights, **protocol):
    model, spec = load_model(weights, "cpu")
    passes = InferenceProtocol(config=InferenceConfig(**protocol))
    return ScenePredictor(model, spec.recipe, len(spec.classes), passes)


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("together", [True, False])
def test_clouds_of_a_few_points(weights, count, together):
    scene = room(count)
    scene = scene.moved(np.zeros((count, 3), np.float32)) if together else scene
    labels = predictor_of(weights, tta="scannet").predict_labels(scene.without("segment"))
    assert labels.shape == (count,) and (labels != IGNORE).all()


def test_fragments_together_or_one_by_one(weights):
    scene = room().without("segment")
    together = predictor_of(weights).predict_labels(scene)
    voxels = 10 * 15 * 5
    alone = predictor_of(weights, max_points=voxels).predict_labels(scene)
    assert (together == alone).mean() > 0.99  # clouds of a batch do not see each other
