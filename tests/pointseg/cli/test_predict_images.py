"""pointseg-predict with models that read images: where these are, and clouds that have none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pointseg.cli import predict
from pointseg.files import write_cloud
from pointseg.images.readers.image_files import ImageFile
from pointseg.images.readers.manifest import write_manifest
from pointseg.training.train import train
from tests.pointseg.painted import SEEING, Painted, spec
from tests.pointseg.tiny import RECIPE
from tests.pointseg.tiny import spec as boxes

MANIFEST = "{scene}.cameras.json"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("model")
    return train(spec(out, recipe=replace(SEEING, epochs=1))).best


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that reads no images."""
    out = tmp_path_factory.mktemp("plain")
    return train(boxes(out, recipe=replace(RECIPE, epochs=1))).best


@pytest.fixture
def clouds(tmp_path: Path) -> Path:
    """Two of them; room0 has an image."""
    folder = tmp_path / "clouds"
    for number in (0, 1):
        write_cloud(folder / f"room{number}.ply", Painted().load("val", f"val{number}"))
    (frame,) = Painted(views=1).frames("val", "val0")
    Image.fromarray(frame.read_image()).save(folder / "view.png")
    found = replace(frame, image=ImageFile(folder / "view.png"))
    write_manifest(folder / "room0.cameras.json", [found])
    return folder


def run(model: Path, out: Path, *words: object) -> int:
    given = ["-m", model, "-o", out, "--weights", "none", "--device", "cpu", "--no-pictures"]
    return predict.main([str(word) for word in (*given, *words)])


def test_clouds_without_a_manifest_can_be_allowed(
    model: Path, clouds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (clouds, "--cameras", MANIFEST)
    assert run(model, tmp_path / "out", *words) == 1
    printed = capsys.readouterr()
    assert f"{clouds / 'room1.cameras.json'}: is missing" in printed.out
    assert run(model, tmp_path / "out", *words, "--allow-missing-images") == 0
    printed = capsys.readouterr()
    assert "room0.ply: 100 % of its points are visible in images" in printed.err
    missing = clouds / "room1.cameras.json"
    assert f"room1.ply: has no images ({missing} does not exist)" in printed.err
    header, first, second = (line.split() for line in printed.out.splitlines()[:3])
    assert header == ["file", "points", "seconds", "visible", "classes"]
    assert first[3:5] == ["100", "%"] and second[3:5] == ["0", "%"]
    files = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))["files"]
    assert [file["visible"] for file in files] == [1.0, 0.0] and "has no images" in files[1][
        "notes"
    ][0]
    text = (clouds / "room0.cameras.json").read_text(encoding="utf-8")
    missing.write_text(text, encoding="utf-8")  # images that come later are read
    assert run(model, tmp_path / "out", *words, "--allow-missing-images") == 0
    printed = capsys.readouterr()
    assert (
        "room1.ply: 100 % of its points are visible in images" in printed.err
        and " kept " in printed.out
    )


def test_clouds_without_images_at_all(
    model: Path, clouds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(model, tmp_path / "out", clouds, "--allow-missing-images") == 0
    assert capsys.readouterr().err.count("--cameras") == 2


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--weights", "nonsense"], "--weights: "),
        (["--max-views", "1"], "--max-views: "),
        (["--allow-missing-images"], "--allow-missing-images: "),
        (["--weights", "none", "--cameras", MANIFEST], "--weights, --cameras: "),
    ],
)
def test_what_is_for_images_is_refused_for_models_that_read_none(
    plain: Path, clouds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], named: str,
) -> None:  # fmt: skip
    out = tmp_path / "out"
    assert predict.main([str(clouds), "-m", str(plain), "-o", str(out), *words]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith(f"pointseg-predict: {named}the model {plain} reads no images")
    assert printed.count("\n") == 1 and not out.exists()


def colmap(model: Path, images: Path) -> None:
    """The camera above val0 as COLMAP writes it, and its image."""
    model.mkdir(parents=True)
    images.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 PINHOLE 64 64 64 64 32 32\n", encoding="utf-8")
    (model / "images.txt").write_text("1 1 0 0 0 -1 -1 2 1 v.png\n\n", encoding="utf-8")
    (frame,) = Painted(views=1).frames("val", "val0")
    Image.fromarray(frame.read_image()).save(images / "v.png")


def test_colmap_for_all_clouds(
    model: Path, clouds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    site = tmp_path / "a {site}"
    colmap(site / "sparse", site / "images")
    room = clouds / "room0.ply"
    assert run(model, tmp_path / "whole", room, "--cameras", site / "sparse") == 0
    assert "100 % of its points are visible in images" in capsys.readouterr().err
    (site / "images").rename(site / "photos")
    monkeypatch.chdir(site)  # as other paths of the command, not below the cloud's folder
    words = (room, "--cameras", "sparse", "--images")
    assert run(model, tmp_path / "moved", *words, "photos") == 0
    assert "100 % of its points are visible in images" in capsys.readouterr().err
    assert run(model, tmp_path / "lost", *words, "images") == 1
    assert f"{site / 'images' / 'v.png'}: this image is missing" in capsys.readouterr().out


def test_colmap_in_a_folder_for_each_cloud(
    model: Path, clouds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    colmap(clouds / "room0" / "sparse", clouds / "room0" / "photos")
    rooms = sorted(clouds.glob("*.ply"))
    words = (*rooms, "--cameras", "{scene}/sparse", "--images", "{scene}/photos")
    assert run(model, tmp_path / "out", *words) == 1
    missing = clouds / "room1" / "sparse"
    assert f"{missing}: is missing" in capsys.readouterr().out
    assert run(model, tmp_path / "out", *words, "--allow-missing-images") == 0
    printed = capsys.readouterr().err
    assert "100 % of its points" in printed and f"({missing} does not exist)" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "photos"], "--images: "),
        (["--images", "photos", "--cameras", "organised"], "--images: "),
        (["--cameras", "{colmap: a, images: b}"], "--cameras {colmap"),
        ([], "--cameras"),
    ],
)  # fmt: skip
def test_cameras_that_are_none(
    model: Path, clouds: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    words: list[str], message: str,
) -> None:  # fmt: skip
    assert run(model, tmp_path / "out", clouds, *words) == 2
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
