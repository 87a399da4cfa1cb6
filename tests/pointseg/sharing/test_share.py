"""Packaged models of clouds: what they hold, what the card says, upload to a stand-in of the hub and use."""

from __future__ import annotations

import argparse
import hashlib
import json
from dataclasses import replace

import pytest
import torch
import yaml

import pointseg
from dinomed3d.hub.model_card import plain
from dinomed3d.runtime.errors import UserError
from pointseg.cli.initial_weights import open_start
from pointseg.cli.package import main
from pointseg.images.config import ImageConfig
from pointseg.models.checkpoint import DISTILLED, read_checkpoint, save_checkpoint, write_content
from pointseg.models.image_encoder import open_for
from pointseg.models.network import build_segmenter
from pointseg.models.pretrained import weights_of
from pointseg.sharing.model_card import model_card
from pointseg.sharing.package import package_model
from pointseg.sharing.share import card_of
from pointseg.training.tasks.distillation import Distillation
from tests.hub import TOKEN, hub  # noqa: F401
from tests.pointseg.painted import SEEING
from tests.pointseg.tiny import CLASSES, RECIPE

# of huggingface_hub, in its own code
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
SCENE = "house of Anna Maier"


@pytest.fixture
def best(tmp_path):
    """A run's folder: the best model, the last one with its scenes, and a test."""
    weights = build_segmenter(RECIPE, 2).state_dict()
    training = {"scene_names": [[["train", SCENE]] * 3, [["val", SCENE]]]}
    best, last = tmp_path / "best.pt", tmp_path / "last.pt"
    save_checkpoint(best, weights, recipe=RECIPE, classes=CLASSES, training=training)
    save_checkpoint(last, weights, recipe=RECIPE, classes=CLASSES, training=training)
    sha256 = hashlib.sha256(best.read_bytes()).hexdigest()
    (tmp_path / "test").mkdir()
    write_scores(tmp_path / "test" / "metrics.json", sha256)
    return best


def write_scores(path, sha256):
    protocol = {"checkpoint_sha256": sha256, "dataset": "boxes", "splits": ["val"]}
    scores = {"test_point_miou": 0.75, "test_point_iou": {"floor": 0.9, "box": 0.6}, "scenes": 2}
    path.write_text(json.dumps({**scores, "protocol": protocol}))


def test_a_package_is_the_model_and_names_no_scene(best, tmp_path):
    out = package_model(best, tmp_path / "m.pt")
    assert SCENE.encode() not in out.read_bytes()
    before, after = read_checkpoint(best), read_checkpoint(out)
    assert before["recipe"] == after["recipe"]
    assert all(torch.equal(before["model"][key], after["model"][key]) for key in before["model"])
    again = read_checkpoint(package_model(out, tmp_path / "again.pt"))
    assert again["about"] == after["about"]
    with pytest.raises(UserError, match=r"is a folder; give .*best\.pt"):
        read_checkpoint(tmp_path)
    card = card_of(out, "hf:us/boxes").decode()
    assert yaml.safe_load(card.split("---\n")[1])["library_name"] == "pointseg"
    for words in ("3 scenes, 1 for validation", "| box | 60.0 |", "| mean | 75.0 |", "| 1 | box |"):
        assert words in card


@pytest.fixture
def student(tmp_path):
    """What a distillation leaves, with the names of its scenes and projections to the teacher's features."""
    _, images = open_for(SEEING.images, "none")
    recipe = replace(SEEING, images=replace(images, weights_sha256="ab" * 32), dataset="scannet")
    task, file = Distillation(recipe, None), tmp_path / "student" / "last.pt"
    file.parent.mkdir()
    training = {"scene_names": [[["train", SCENE]] * 3, [["val", SCENE]]]}
    task.save(file, task.build().state_dict(), training)
    return file


def test_a_distilled_backbone_is_shared_for_trainings(hub, student, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    out = tmp_path / "m.pt"
    call = [str(student), "-o", str(out), "--push", "us/student"]
    assert main(call) == 2 and "--licence: the model was trained on" in capsys.readouterr().err
    (tmp_path / "terms.txt").write_text("DINOv3 License")
    assert main([*call, "--licence", str(tmp_path / "terms.txt")]) == 0
    name = capsys.readouterr().out.splitlines()[-1]
    content = read_checkpoint(out, (DISTILLED,))
    assert SCENE.encode() not in out.read_bytes() and "scores" in content["about"]
    assert {key.split(".")[0] for key in content["model"]} == {"backbone"}
    card = hub.files("us/student")["README.md"].decode()
    words = (f"| image encoder | {plain(SEEING.images.encoder)}, weights {'ab' * 8} |", "| data set | scannet |",
             "3 scenes, 1 for validation", "pointseg-train", "--init hf:us/student", "distillation",
             "Built with DINOv3")  # fmt: skip
    assert all(part in card for part in words)
    assert "pointseg-predict" not in card and "semantic-segmentation" not in card
    assert "| colours become | 0 to 1 |" in card
    content["recipe"] = replace(SEEING, images=ImageConfig(), features=("coord",)).to_json()
    assert "olours" not in model_card(content, name="m.pt")
    start = argparse.Namespace(backbone="minkunet", init=name, resume=False)
    bare = replace(SEEING, images=None)
    said = weights_of(open_start(start, tmp_path), CLASSES.names, bare)(build_segmenter(bare, 2))
    assert said.startswith("distilled backbone from")
    again = package_model(out, tmp_path / "again.pt")
    assert read_checkpoint(again, (DISTILLED,))["about"] == content["about"]
    with pytest.raises(UserError, match="--scores: is for models with classes"):
        package_model(student, tmp_path / "no.pt", scores=tmp_path / "metrics.json")


def test_a_damaged_backbone_is_not_shared(student, tmp_path):
    content = read_checkpoint(student, (DISTILLED,))
    kept = {k: v for k, v in content["model"].items() if not k.startswith("backbone.")}
    for model in ({}, kept, None):
        write_content(student, {**content, "model": model})
        with pytest.raises(UserError, match="last.pt: "):
            package_model(student, tmp_path / "m.pt")


@pytest.mark.parametrize(
    ("dataset", "features", "has", "lacks"),
    [
        (
            "folder",
            ("strength", "returns"),
            ("predict CLOUD.laz", 'predict("CLOUD.laz")'),
            "indoor",
        ),
        ("folder", ("color", "strength"), ("(points, color=rgb, intensity=intensity)",), "indoor"),
        (
            "scannet",
            ("color", "normal"),
            ("color=rgb, normal=normals", "indoor scenes"),
            "CLOUD.laz",
        ),
    ],
)
def test_the_card_says_what_a_call_needs_and_not_where_clouds_of_a_folder_are_from(
    best, tmp_path, dataset, features, has, lacks
):
    content = read_checkpoint(package_model(best, tmp_path / "m.pt"))
    recipe = replace(RECIPE, dataset=dataset, features=features)
    card = model_card({**content, "recipe": recipe.to_json()}, name="m.pt")
    assert all(words in card for words in has) and lacks not in card


def test_upload_and_use(hub, best, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    out = tmp_path / "m.pt"
    assert main([str(best), "--push", "us/boxes"]) == 2
    assert "may name scenes" in capsys.readouterr().err
    assert not hub.repositories
    assert main([str(best), "-o", str(out), "--push", "us/boxes"]) == 0
    name = capsys.readouterr().out.splitlines()[-1]
    assert hub.files("us/boxes")["model.pt"] == out.read_bytes()
    assert b"hf:us/boxes" in hub.files("us/boxes")["README.md"]
    assert pointseg.load_model(name, device="cpu").classes == CLASSES.names


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": "other"}, "--scores"),
        ({"scores": "broken"}, "--scores"),
        ({"licence": "empty"}, "--licence"),
        ({"out": "m.zip"}, r"\.pt"),
        ({"out": "best.pt"}, "exists"),
    ],
)
def test_refusals(best, tmp_path, change, words):
    write_scores(tmp_path / "other", "0" * 64)
    (tmp_path / "broken").write_text("{}")
    (tmp_path / "empty").write_text(" ")
    paths = {key: tmp_path / value for key, value in {"out": "m.pt", **change}.items()}
    with pytest.raises(UserError, match=words):
        package_model(best, **paths)


def test_scores_of_another_checkpoint_are_left_out(best, tmp_path, caplog):
    write_scores(tmp_path / "test" / "metrics.json", "0" * 64)
    out = package_model(best, tmp_path / "m.pt")
    assert read_checkpoint(out)["about"]["scores"] is None
    assert "another checkpoint" in caplog.text


def test_licences(tmp_path):
    images = ImageConfig(encoder="vit_small_patch16_dinov3", channels=8, stride=16)
    recipe = replace(RECIPE, images=images, licence="CC-BY-NC 4.0 (not for commercial use)")
    path, licence = tmp_path / "best.pt", tmp_path / "licence.txt"
    weights = build_segmenter(recipe, 2).state_dict()
    save_checkpoint(path, weights, recipe=recipe, classes=CLASSES)
    with pytest.raises(UserError, match="--licence"):
        package_model(path, tmp_path / "m.pt")
    licence.write_text("Some other licence\n")
    with pytest.raises(UserError, match="DINOv3"):
        package_model(path, tmp_path / "m.pt", licence=licence)
    licence.write_text("DINOv3 License\n")
    card = card_of(package_model(path, tmp_path / "m.pt", licence=licence), "m.pt").decode()
    assert yaml.safe_load(card.split("---\n")[1])["license_name"] == "dinov3-license"
    assert "CC-BY-NC 4.0" in card
    assert "--cameras" in card


def test_a_distilled_backbone_of_the_users_own_without_weights_is_refused(student, tmp_path):
    own = "somebody.networks:Own"  # which is not imported for it
    content = read_checkpoint(student, (DISTILLED,))
    content["recipe"] = json.dumps({**json.loads(content["recipe"]), "backbone": own})
    content["model"] = {k: v for k, v in content["model"].items() if k.startswith("heads.")}
    write_content(student, content)
    licence = tmp_path / "terms.txt"
    licence.write_text("DINOv3 License")
    with pytest.raises(UserError, match=r"last\.pt: has no weights of a backbone"):
        package_model(student, tmp_path / "m.pt", licence=licence, backbone=own)
    assert not (tmp_path / "m.pt").exists()
