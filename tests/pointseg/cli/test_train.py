"""``pointseg-train``: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pointseg.cli.train import main
from pointseg.training.train import LAST

TINY = [
    *("--backbone", "minkunet", "--device", "cpu", "--workers", "0"),
    *("--override", 'backbone_config={"base_channels": 4, "channels": [4,4,4,4,4,4,4,4], "layers": [1,1,1,1,1,1,1,1]}'),
    *("--override", "voxel_m=0.3", "--override", "epochs=1", "--override", "evaluations=1"),
    *("--override", "batch_size=5", "--override", "train_splits=test", "--override", "max_points=2000"),
]  # fmt: skip


def test_the_recipe_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "scannet", "--show-recipe", "--class-weights", "sqrt"]
    assert main([*words, "--override", "optimizer.lr=0.001"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["optimizer"]["lr"] == 0.001 and shown["class_weights"] == "sqrt"
    assert shown["backbone"] == "ptv3" and shown["voxel_m"] == 0.02


@pytest.mark.slow
def test_a_run_from_nothing_to_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "synthetic", *TINY, "--out", str(tmp_path / "run")]
    assert main(words) == 0
    said = capsys.readouterr()
    lines = dict(line.split(maxsplit=1) for line in said.out.splitlines())
    assert lines["best"].startswith(f"model   {tmp_path / 'run' / 'best.pt'} (val_voxel_miou 0.")
    assert Path(lines["curves"]).read_bytes().startswith(b"\x89PNG")
    assert Path(lines["prediction"]).read_bytes().startswith(b"\x89PNG")
    assert "step 4: val_voxel_miou" in said.err
    # once more: it is neither overwritten nor begun anew without being asked
    before = (tmp_path / "run" / LAST).read_bytes()
    assert main(words) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err
    assert main([*words, "--resume", "--seed", "1"]) == 2
    assert "started with seed 0" in capsys.readouterr().err
    assert (tmp_path / "run" / LAST).read_bytes() == before


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ["--dataset", "synthetic", *TINY, "--out", str(tmp_path / "file" / "run")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("pointseg-train: ") and said.count("\n") == 1 and "file" in said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--override epoch=1", "--override epoch=1"),
        ("--resume", "--resume"),
        ("--init none.pt", "--init none.pt"),
        ("--device cpu --precision float16", "--precision float16"),
        ("--override backbone_config.depth=3", "'depth'"),
        ("--accumulate-grad-batches 3", "batch_size=4"),
    ],
)
def test_mistakes_are_one_line(
    words: str,
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset", "synthetic", *words.split()]) == 2
    said = capsys.readouterr().err
    assert said.startswith("pointseg-train: ") and said.count("\n") == 1 and named in said
    assert not list(tmp_path.rglob("*.pt"))


def test_what_the_description_says_of_files_is_kept_for_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{k / 9} 0 0 {k} {k % 2}\n" for k in range(100))
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"{split}.xyz").write_text(rows)
    description = (
        "classes: [a, b]\nfeatures: [strength]\nvoxel_m: 0.05\nlabel: kind\n"
        "columns: [x, y, z, intensity, kind]\n"
    )
    (tmp_path / "dataset.yaml").write_text(description + "intensity_max: 50\n")
    words = ["--dataset", "folder", "--root", str(tmp_path)]
    assert main([*words, "--show-recipe"]) == 0
    form = json.loads(capsys.readouterr().out)["cloud_format"]
    assert form["intensity_max"] == 50
    assert form["columns"] == ["x", "y", "z", "intensity", "label"]
    # where nothing is said of the scale, that is said, before anything else can go wrong
    (tmp_path / "dataset.yaml").write_text(description)
    tiny = [*TINY, "--precision", "float16", "--override", "train_splits=train"]
    assert main([*words, *tiny]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "guessed for each file; state it with 'intensity_max'" in lines[0] and len(lines) == 2
    assert main([*words, *tiny, "--override", "cloud_format.intensity_max=9"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
