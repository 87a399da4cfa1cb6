"""Seen and unseen points: the same rule in training, distilling and testing, and the options that mean it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pointseg.cli import cache_features, distill, test, train
from pointseg.files import write_cloud
from pointseg.images.readers.image_files import DepthFile, ImageFile
from pointseg.images.readers.manifest import write_manifest
from pointseg.models.checkpoint import read_checkpoint, write_content
from tests.pointseg.cli.test_images import TINY, refused
from tests.pointseg.painted import SIZE, Painted

DESCRIPTION = """
classes: [red, green]
features: [color]
voxel_m: 0.004
label: segment
cameras: "{folder}/{scene}.cameras.json"
check_scale: false
"""
CHANGES = [
    c for c in TINY if not c.startswith(("images.visibility.near_m", "images.views", "features"))
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small voxels; half of each scene's 600 points lie 0.1 m behind what the depth maps show.

    Of three cameras the first looks to the side, at half of the floor.
    """
    root = tmp_path_factory.mktemp("folder")
    data = Painted(views=3)
    for split, count in (("train", 2), ("val", 1), ("test", 1)):
        folder = root / split
        folder.mkdir()
        for number in range(count):
            kind = "train" if split == "train" else "val"
            scene = data.load(kind, f"{kind}{number}")
            lower = scene.coord.copy()
            lower[300:, 2] += 0.1
            write_cloud(folder / f"{split}{number}.ply", replace(scene, coord=lower))
            frames = []
            for view, frame in enumerate(data.frames(kind, f"{kind}{number}")):
                image, depth = (
                    folder / f"{split}{number}-{view}{end}.png" for end in ("", "-depth")
                )
                Image.fromarray(frame.read_image()).save(image)
                Image.fromarray(np.full((SIZE, SIZE), 2000, np.uint16)).save(depth)
                pose = frame.camera.world_to_camera.clone()
                pose[0, 3] += float(view == 0)
                kept: dict[str, Any] = {
                    "image": ImageFile(image),
                    "depth": DepthFile(depth, scale=1000.0),
                }
                kept["camera"] = replace(frame.camera, world_to_camera=pose)
                frames.append(replace(frame, name=f"v{view}", **kept))
            write_manifest(folder / f"{split}{number}.cameras.json", frames)
    (root / "dataset.yaml").write_text(DESCRIPTION, encoding="utf-8")
    return root


def options(root: Path, *changes: str, seeing: bool = True) -> list[str]:
    words = f"--dataset folder --root {root} --backbone minkunet --workers 0 --device cpu".split()
    for change in (*CHANGES, *changes):
        words += ["--override", change] if seeing or not change.startswith("images.") else []
    return words


@pytest.fixture(scope="module")
def models(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One that reads images, by a rule of its own, and one that reads none."""
    out = tmp_path_factory.mktemp("models")
    rule = [f"images.visibility.{change}" for change in ("near_m=1.5", "depth_tolerance_m=0.15")]
    seeing = [*options(root, "images.views=2", *rule), "--images", "--weights", "none"]
    assert train.main([*seeing, "--out", str(out / "seeing")]) == 0
    assert train.main([*options(root, seeing=False), "--out", str(out / "plain")]) == 0
    return {name: out / name / "best.pt" for name in ("seeing", "plain")}


def scored(root: Path, model: Path, out: Path, *words: str) -> dict[str, Any]:
    fixed = f"-m {model} --dataset folder --root {root} --single-pass --device cpu --pictures 0"
    assert test.main([*fixed.split(), "-o", str(out), *words]) == 0
    found: dict[str, Any] = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    return found


def points(metrics: dict[str, Any]) -> tuple[int, int]:
    by_visibility = metrics["test_point_miou_by_visibility"]
    return by_visibility["visible"]["points"], by_visibility["not_visible"]["points"]


def test_small_voxels_are_seen_alike_by_training_distilling_and_testing(
    root: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for main, more in ((train.main, ["--images"]), (distill.main, [])):
        capsys.readouterr()
        assert main([*options(root), *more, "--show-recipe"]) == 0
        images = json.loads(capsys.readouterr().out)["images"]
        assert images["visibility"]["depth_tolerance_m"] == pytest.approx(0.04)  # a fifth of 2 cm's
    found = scored(root, models["plain"], tmp_path, "--by-visibility")
    assert points(found) == (300, 300)
    assert found["protocol"]["visibility"]["depth_tolerance_m"] == pytest.approx(0.04)
    assert "up to 10 images of 480 x 640 pixels; points at any distance" in capsys.readouterr().err


def test_clouds_without_classes_teach_and_are_no_use_to_training(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.yaml"
    lines = [line for line in DESCRIPTION.splitlines() if not line.startswith(("classes", "label"))]
    bare.write_text("\n".join(lines), encoding="utf-8")
    words = [*options(root), *f"--config {bare} --weights none --out {tmp_path / 'run'}".split()]
    refused(train.main, [*words, "--images"], capsys, "bare.yaml: lacks classes; for example")
    assert distill.main(words) == 0
    assert (tmp_path / "run" / "last.pt").is_file()


def test_points_are_separated_as_another_model_sees_them(
    root: Path, models: dict[str, Path], tmp_path: Path
) -> None:
    own = scored(root, models["seeing"], tmp_path / "own", "--weights", "none")
    like = ["--by-visibility", str(models["seeing"])]
    found = scored(root, models["plain"], tmp_path / "like", *like)
    assert points(found) == points(own) == (600, 0)
    assert found["protocol"]["visibility"] == {
        "size": [64, 64], "views": 2, "near_m": 1.5, "far_m": None, "depth_tolerance_m": 0.15, "occlusion": "depth",
    }  # fmt: skip
    assert "visibility" not in own["protocol"]
    fewer = scored(root, models["plain"], tmp_path / "one", *like, "--max-views", "1")
    assert fewer["protocol"]["visibility"]["views"] == 1
    fewer = scored(root, models["plain"], tmp_path / "one", "--by-visibility", "--max-views", "1")
    assert fewer["protocol"]["visibility"]["views"] == 1


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--weights none --image-cache c", "--weights, --image-cache"),
        ("--weights x", "--weights: "),
        ("--image-cache nowhere", "--image-cache: "),
        ("--max-views 1", "--max-views: "),
        ("--allow-missing-images", "--allow-missing-images: "),
        ("--by-visibility --image-cache c", "--image-cache: "),
        ("--by-visibility --weights x --allow-missing-images", "--weights, --allow-missing-images"),
        ("--by-visibility PLAIN", "--by-visibility"),
        ("--by-visibility SEEING --image-cache nowhere", "nowhere"),
        ("-m SEEING --weights none --by-visibility SEEING", "--by-visibility"),
    ],
)
def test_image_options_that_do_not_fit_a_model(
    root: Path, models: dict[str, Path], capsys: pytest.CaptureFixture[str], words: str, named: str
) -> None:
    given = {"PLAIN": str(models["plain"]), "SEEING": str(models["seeing"])}
    fixed = ["-m", str(models["plain"]), "--dataset", "folder", "--root", str(root)]
    refused(test.main, [*fixed, *(given.get(word, word) for word in words.split())], capsys, named)


def test_points_are_separated_by_the_views_that_a_cache_holds(
    root: Path, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointseg.images.features import encoder as encoding

    whole, config = encoding.open_encoder, {"embed_dim": 24, "depth": 1, "num_heads": 2}
    monkeypatch.setattr(
        encoding, "open_encoder", lambda *words, **more: whole(*words, config, **more)
    )
    cache = f"--dataset folder --root {root} --weights none --image-size 64 64 --device cpu"
    kept = ["--image-cache", str(tmp_path / "cache")]
    assert cache_features.main([*cache.split(), "--max-views", "1", "-o", kept[1]]) == 0
    monkeypatch.undo()
    own = scored(root, models["seeing"], tmp_path / "own", *kept)
    like = scored(
        root, models["plain"], tmp_path / "like", "--by-visibility", str(models["seeing"]), *kept
    )
    assert points(like) == points(own) and 200 < points(own)[0] < 400
    assert like["protocol"]["visibility"]["cached_views"] == 1


def test_a_checkpoint_that_cannot_be_read_is_named(
    root: Path, models: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = read_checkpoint(models["seeing"])
    other = tmp_path / "other.pt"
    write_content(other, {**content, "recipe": content["recipe"].replace('"near_m"', '"nearest"')})
    words = ["-m", str(models["plain"]), "--dataset", "folder", "--root", str(root)]
    refused(
        test.main, [*words, "--by-visibility", str(other)], capsys, f"checkpoint {other}: recipe"
    )
