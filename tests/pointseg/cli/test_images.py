"""The commands with images: train, test, distil, cache, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import pointseg.datasets as datasets
from dinomed3d.runtime.errors import UserError
from pointseg.cli import cache_features, distill, predict, test, train
from pointseg.files import write_cloud
from pointseg.images.features.feature_cache import find_cache
from pointseg.images.readers.frame import Frame
from pointseg.images.readers.image_files import ImageFile
from pointseg.images.readers.manifest import write_manifest
from pointseg.models.checkpoint import DISTILLED, read_checkpoint
from pointseg.models.image_encoder import trained_with
from pointseg.models.trained_model import load_model
from tests.pointseg.painted import Painted

TINY = [
    'images.encoder_config={"embed_dim": 24, "depth": 1, "num_heads": 2}',
    "images.size=[64,64]",
    "images.visibility.near_m=0",
    "images.views=2",
    "features=color",
    "voxel_m=0.1",
    "epochs=1",
    "evaluations=1",
    "batch_size=2",
    "mix3d=0",
    "augmentation.elastic_probability=0",
    'backbone_config={"base_channels":4,"channels":[4,4,4,4,4,4,4,4],"layers":[1,1,1,1,1,1,1,1]}',
]
DATA = ["--dataset", "scannet", "--backbone", "minkunet", "--workers", "0", "--device", "cpu"]
RUN = [*DATA, *(word for change in TINY for word in ("--override", change))]
BARE = [*DATA, *(w for c in TINY if not c.startswith("images.") for w in ("--override", c))]


@pytest.fixture(autouse=True)
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "open_dataset", lambda *_, **__: Painted())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets, "open_dataset", lambda *_, **__: Painted())
        assert train.main([*RUN, "--images", "--weights", "none", "--out", str(out)]) == 0
    return out / "best.pt"


def refused(
    main: object, words: list[str], capsys: pytest.CaptureFixture[str], *named: str
) -> None:
    capsys.readouterr()
    assert main(words) == 2  # type: ignore[operator]
    lines = capsys.readouterr().err.strip().splitlines()
    assert all(text in lines[-1] for text in named), lines


def test_trained_and_tested(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = f"-m {model} --dataset scannet -o {tmp_path} --split val --single-pass --device cpu"
    words += " --pictures 0 --weights none"
    assert test.main(words.split()) == 0
    assert "points visible in images: 1,200 labelled" in capsys.readouterr().out
    assert test.main([*words.split(), "--drop-views", "1"]) == 0
    assert "points not visible in images: 1,200 labelled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("main", "base", "words", "named"),
    [
        (train.main, RUN, "--images", "--weights"),
        (train.main, BARE, "--weights none", "--weights, --image-cache"),
        (train.main, RUN, "--images --encoder vit_huge", "--encoder vit_huge"),
        (train.main, RUN, "--images --weights missing.pth", "missing.pth"),
        (train.main, DATA, "--dataset synthetic --images --weights none", "synthetic"),
        (train.main, RUN, "--images --image-cache nowhere", "nowhere"),
        (distill.main, RUN, "", "--weights"),
        (distill.main, RUN, "--also nothing --weights none", "--also nothing"),
    ],
)
def test_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], main: object, base: list[str], words: str,
    named: str,
) -> None:  # fmt: skip
    refused(main, [*base, *words.split(), "--out", str(tmp_path)], capsys, named)
    assert not list(tmp_path.iterdir())


def test_features_from_a_cache_are_those_of_the_images(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pointseg.images.features import encoder as encoding

    whole = encoding.open_encoder

    def tiny(name: str, weights: str, config: object = None, **settings: object) -> object:
        return whole(name, weights, {"embed_dim": 24, "depth": 1, "num_heads": 2}, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(encoding, "open_encoder", tiny)
    cache = "--dataset scannet --weights none --image-size 64 64 --max-views 2 --device cpu"
    assert cache_features.main([*cache.split(), "-o", str(tmp_path / "cache")]) == 0
    words = ["-m", str(model), "--dataset", "scannet", "--split", "val", "--device", "cpu"]
    kept = ["--image-cache", str(tmp_path / "cache")]
    assert test.main([*words, *kept, "-o", str(tmp_path / "a"), "--pictures", "0"]) == 0
    assert (
        test.main([*words, "--weights", "none", "-o", str(tmp_path / "b"), "--pictures", "0"]) == 0
    )
    one, two = (
        np.load(tmp_path / name / "labels" / "val" / "val0.npy", allow_pickle=False)
        for name in "ab"
    )
    assert (one == two).mean() > 0.99
    held = find_cache(tmp_path / "cache", encoder="vit_small_patch16_dinov3", size=(64, 64))
    images = load_model(model, "cpu", encoder=trained_with("none"))[0].images
    assert images is not None
    for frame in Painted().frames("val", "val0"):
        pixels = torch.from_numpy(frame.read_image().transpose(2, 0, 1).copy())[None]
        found = held.get(frame)
        assert found is not None and found.abs().max() > 0.1
        torch.testing.assert_close(found.float(), images.encode(pixels)[0], atol=2e-3, rtol=2e-3)
    out = ["--out", str(tmp_path / "run")]
    assert train.main([*RUN, "--images", *kept, *out]) == 0
    other = ["--override", "images.size=[32,64]", "--out", str(tmp_path / "c")]
    refused(train.main, [*RUN, "--images", *kept, *other], capsys, "another image size")


def test_cameras_that_are_read_wrongly_are_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    flip = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))

    class Flipped(Painted):
        """With OpenGL's camera axes, under which none of its points is in view."""

        def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
            found = super().frames(split, scene)
            poses = [flip @ frame.camera.world_to_camera for frame in found]
            return tuple(
                replace(frame, camera=replace(frame.camera, world_to_camera=pose))
                for frame, pose in zip(found, poses, strict=True)
            )

    def started(spec: object) -> None:
        raise UserError("training starts")

    monkeypatch.setattr(datasets, "open_dataset", lambda *_, **__: Flipped())
    monkeypatch.setattr("pointseg.training.train.train", started)
    for number, (main, more) in enumerate(((train.main, ["--images"]), (distill.main, []))):
        words = [*RUN, *more, "--weights", "none", "--out", str(tmp_path / str(number))]
        look = "pointseg-check-cameras --dataset scannet"
        refused(main, words, capsys, "OpenGL's", look, "--no-camera-check")
        refused(main, [*words, "--no-camera-check"], capsys, "training starts")


def test_distilled_then_trained_without_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = tmp_path / "student"
    words = [*RUN, "--weights", "none", "--out", str(student), "--cls-token-loss", "0.5"]
    assert distill.main(words) == 0
    said = capsys.readouterr().out
    assert "pointseg-train --init" in said
    assert len(list((student / "pictures").glob("features-*.png"))) == 2
    started = ["--init", str(student / "last.pt"), "--out", str(tmp_path / "tuned")]
    assert train.main([*BARE, *started]) == 0
    assert "distilled backbone from" in capsys.readouterr().err
    tested = ["-m", str(student / "last.pt"), "--dataset", "scannet"]
    refused(test.main, tested, capsys, "last.pt", "--init")


def test_several_datasets_are_distilled_together(tmp_path: Path) -> None:
    words = f"--weights none --out {tmp_path} --extra-dataset s3dis=a --also structured3d=b --heads each"
    assert distill.main([*RUN, *words.split()]) == 0
    state = read_checkpoint(tmp_path / "last.pt", (DISTILLED,))["model"]
    assert {key for key in state if key.startswith("heads.")} == {
        f"heads.{number}.{name}" for number in (0, 1, 2) for name in ("weight", "bias")
    }


def test_prediction_with_cameras(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Painted().load("val", "val0").without("segment")
    write_cloud(tmp_path / "room.ply", scene)
    words = [str(tmp_path / "room.ply"), "-m", str(model), "-o", str(tmp_path / "out")]
    refused(predict.main, words, capsys, "--weights")
    refused(predict.main, [*words, "--weights", "none"], capsys, "--cameras")
    capsys.readouterr()
    manifest = ["--weights", "none", "--cameras", "{scene}.cameras.json"]
    assert predict.main([*words, *manifest]) == 1  # there is no such manifest: this cloud fails
    assert "room.cameras.json" in capsys.readouterr().out


@pytest.mark.slow
def test_results_are_kept_until_a_camera_or_an_image_changes(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = Painted().load("val", "val0").without("segment")
    write_cloud(tmp_path / "room.ply", scene)
    (frame,) = Painted(views=1).frames("val", "val0")
    Image.fromarray(frame.read_image()).save(tmp_path / "view.png")
    manifest = tmp_path / "room.cameras.json"
    write_manifest(manifest, [replace(frame, image=ImageFile(tmp_path / "view.png"))])
    words = [str(tmp_path / "room.ply"), "-m", str(model), "-o", str(tmp_path / "out")]
    words += ["--weights", "none", "--cameras", "{scene}.cameras.json", "--device", "cpu"]

    def kept() -> bool:
        assert predict.main(words) == 0
        printed = capsys.readouterr()
        again = "of its points" in printed.err
        assert again != (" kept " in printed.out)
        return not again

    assert not kept() and kept()
    Image.fromarray(255 - frame.read_image()).save(tmp_path / "view.png")
    assert not kept() and kept()
    text = manifest.read_text(encoding="utf-8")
    camera = replace(frame.camera, intrinsics=frame.camera.intrinsics * torch.tensor([1, 1.01, 1]))
    turned = replace(frame, camera=camera, image=ImageFile(tmp_path / "view.png"))
    write_manifest(manifest, [turned])
    assert manifest.read_text(encoding="utf-8") != text
    assert not kept() and kept()


def test_scenes_without_images_can_be_allowed_and_a_run_ends_well_without_pictures(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"-m {model} --dataset scannet --split val --single-pass --device cpu --weights none"
    words = [*text.split(), "--pictures", "0", "-o", str(tmp_path / "test")]
    monkeypatch.setattr(datasets, "open_dataset", lambda *_, **__: Painted(blind=("val0",)))
    refused(test.main, words, capsys, "val/val0: has no images", "--allow-missing-images")
    assert test.main([*words, "--allow-missing-images"]) == 0
    assert "points not visible in images: 600 labelled" in capsys.readouterr().out
    assert test.main([*words, "--allow-missing-images", "--max-views", "1"]) == 0

    class NoPictures(Painted):
        """Its first test scene has no images, which training never looks at."""

        def scenes(self, split: str) -> tuple[str, ...]:
            return ("test0",) if split == "test" else super().scenes(split)

    blind = NoPictures(blind=("test0",))
    monkeypatch.setattr(datasets, "open_dataset", lambda *_, **__: blind)
    out = tmp_path / "run"
    more = ["--override", "test_splits=test", "--images", "--weights", "none", "--out", str(out)]
    capsys.readouterr()
    assert train.main([*RUN, *more]) == 0
    said = capsys.readouterr()
    assert "best model" in said.out and "no pictures of predictions" in said.err


def test_visibility_scores_are_for_models_without_images_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*BARE, "--out", str(tmp_path / "run")]) == 0
    words = ["-m", str(tmp_path / "run" / "best.pt"), "--dataset", "scannet", "--split", "val"]
    words += ["--single-pass", "--device", "cpu", "--pictures", "0", "-o", str(tmp_path / "test")]
    capsys.readouterr()
    assert test.main([*words, "--by-visibility"]) == 0
    assert "points visible in images: 1,200 labelled" in capsys.readouterr().out
    assert test.main([*words, "--drop-color"]) == 0


def test_an_own_model_starts_only_where_its_encoder_is(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seeing = [*RUN, "--images", "--weights", "none", "--init", str(model), "--out"]
    assert train.main([*seeing, str(tmp_path / "same")]) == 0
    said = capsys.readouterr().err
    assert "the head is taken" in said and "random weights for vit_small_patch16_dinov3" in said
    wider = [w.replace('"depth": 1', '"depth": 2') for w in seeing]
    refused(train.main, [*wider, str(tmp_path / "other")], capsys, "--init", "--encoder")


def test_hardly_a_point_seen_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    near = [*RUN, "--override", "images.visibility.near_m=2.00195", "--images", "--weights", "none"]
    assert train.main([*near, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().err
    header, row = (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()[:2]
    share = float(dict(zip(header.split(","), row.split(","), strict=True))["visible"])
    assert 0 < share < 0.05
    assert "visible in images" in said and "pointseg-check-cameras" in said
