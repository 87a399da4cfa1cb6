"""The lines of the guides that predict from Python run as they stand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dinomed3d.lifting import DinoEncoder
from pointseg.models import image_encoder
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.image_encoder import open_for
from pointseg.models.network import build_segmenter
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model
from tests.docs.pages import block
from tests.pointseg.evaluation.answers import CLASSES, RECIPE
from tests.pointseg.painted import IMAGES


def test_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_scan(Path("scan.nii.gz"), shape=(24, 20, 18))
    write_model(tmp_path).rename("model.zip")  # what it is shows in the content, not in the name
    exec(block("docs/volumes.md", "dinomed3d.load_model"), {})
    assert capsys.readouterr().out == "{'a': [1], 'b': [2]} ('MRI',) (24, 20, 18)\n"


def test_clouds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    weights = build_segmenter(RECIPE, len(CLASSES)).state_dict()
    save_checkpoint(Path("best.pt"), weights, recipe=RECIPE, classes=CLASSES)
    exec(block("docs/point_clouds.md", 'load_model("best.pt"'), {})
    assert capsys.readouterr().out == "('floor', 'wall', 'thing') (1000,) (1000, 3)\n"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch, tiny_encoder: DinoEncoder) -> list[str]:
    """The weights that the lines open; all are those of a tiny encoder."""
    found: list[str] = []
    monkeypatch.setattr(
        image_encoder,
        "open_encoder",
        lambda name, weights, *_, **__: (found.append(weights), tiny_encoder)[1],
    )
    return found


def save_seeing(path: Path, features: tuple[str, ...]) -> None:
    """A model that reads images."""
    encoder, images = open_for(IMAGES, "none")
    recipe = replace(RECIPE, features=features, images=images)
    weights = build_segmenter(recipe, len(CLASSES), encoder).state_dict()
    path.parent.mkdir(exist_ok=True)
    save_checkpoint(path, weights, recipe=recipe, classes=CLASSES)


def test_clouds_with_images(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    opened: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_seeing(Path("ditr.pt"), ("color",))
    opened.clear()
    exec(block("docs/point_clouds.md", 'load_model("ditr.pt"'), {})
    assert opened == ["dinov2_vits14.safetensors"]
    assert capsys.readouterr().out == "(1000,)\n"
