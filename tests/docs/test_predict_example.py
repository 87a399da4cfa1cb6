"""The lines of the guides that predict from Python run as they stand."""

from __future__ import annotations

from pathlib import Path

import pytest

from pointseg.training.checkpoint import build_segmenter, save_checkpoint
from tests.dinomed3d.inference.cohort.test_run import write_scan
from tests.dinomed3d.inference.models.write_model import write_model
from tests.docs.pages import block
from tests.pointseg.evaluation.answers import CLASSES, RECIPE


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
    exec(block("docs/point_clouds.md", "pointseg.load_model"), {})
    assert capsys.readouterr().out == "('floor', 'wall', 'thing') (1000,) (1000, 3)\n"
