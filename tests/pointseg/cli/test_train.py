"""``pointseg-train``: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pointseg import backbones
from pointseg.cli import command
from pointseg.cli.train import main
from pointseg.training.train import LAST

TINY = [
    *("--backbone", "minkunet", "--device", "cpu", "--workers", "0"),
    *("--override", 'backbone_config={"base_channels": 4, "channels": [4,4,4,4,4,4,4,4], "layers": [1,1,1,1,1,1,1,1]}'),
    *("--override", "voxel_m=0.3", "--override", "epochs=1", "--override", "evaluations=1"),
    *("--override", "batch_size=5", "--override", "train_splits=test", "--override", "max_points=2000"),
]  # fmt: skip


@pytest.mark.parametrize("command", ["train", "test", "predict", "prepare"])
def test_help_is_instant(command: str) -> None:
    code = (
        "import sys\n"
        f"from pointseg.cli.{command} import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'scipy', 'matplotlib', 'tqdm'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert f"pointseg-{command}" in done.stdout


def test_names_are_those_of_their_packages() -> None:
    assert command.BACKBONES == backbones.BACKBONES


def test_the_recipe_can_be_looked_at(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--dataset", "scannet", "--show-recipe", "--class-weights", "sqrt"]
    assert main([*words, "--override", "optimizer.lr=0.001"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["optimizer"]["lr"] == 0.001 and shown["class_weights"] == "sqrt"
    assert shown["backbone"] == "ptv3" and shown["voxel_m"] == 0.02


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
    assert "holds a run; add --resume to go on with it, or --overwrite" in capsys.readouterr().err
    assert main([*words, "--resume", "--seed", "1"]) == 2
    assert "begun with seed 0" in capsys.readouterr().err
    assert (tmp_path / "run" / LAST).read_bytes() == before


def test_a_folder_that_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    words = ["--dataset", "synthetic", *TINY, "--out", str(tmp_path / "file" / "run")]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("pointseg-train: ") and said.count("\n") == 1 and "file" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "scannet"], "--root must name the prepared data, none was given"),
        (["--dataset", "synthetic", "--root", "."], "takes no folder"),
        (["--dataset", "synthetic", "--override", "epoch=1"], "'epoch' is none of dataset"),
        (["--dataset", "synthetic", "--resume"], "last.pt does not exist"),
        (["--dataset", "synthetic", "--init", "none.pt"], "there is no such file"),
        (
            ["--dataset", "synthetic", "--device", "cpu", "--precision", "float16"],
            "a CPU trains in",
        ),
        (
            ["--dataset", "synthetic", "--override", "backbone_config.depth=3"],
            "ptv3 takes no 'depth'; it takes in_channels",
        ),
        (["--dataset", "folder"], "--root must name the folder with your clouds"),
        (["--dataset", "synthetic", "--parts", "3"], "'batch_size' 4 must be a multiple"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith("pointseg-train: ") and said.count("\n") == 1 and message in said
    assert not list(tmp_path.rglob("*.pt"))


def test_what_the_description_says_of_files_is_kept_for_prediction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = "".join(f"{k / 9} 0 0 {k} {k % 2}\n" for k in range(100))
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / split / f"{split}.xyz").write_text(rows)
    told = (
        "classes: [a, b]\nfeatures: [strength]\nvoxel_m: 0.05\nlabel: kind\n"
        "columns: [x, y, z, intensity, kind]\n"
    )
    (tmp_path / "dataset.yaml").write_text(told + "strength_max: 50\n")
    words = ["--dataset", "folder", "--root", str(tmp_path)]
    assert main([*words, "--show-recipe"]) == 0
    form = json.loads(capsys.readouterr().out)["form"]
    assert form["strength_max"] == 50
    assert form["columns"] == ["x", "y", "z", "intensity", "label"]
    # where nothing is said of the scale, that is said, before anything else can go wrong
    (tmp_path / "dataset.yaml").write_text(told)
    tiny = [*TINY, "--init", "none.pt", "--override", "train_splits=train"]
    assert main([*words, *tiny]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert "guessed file by file; say it with 'strength_max'" in lines[0] and len(lines) == 2
    assert main([*words, *tiny, "--override", "form.strength_max=9"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_run_that_was_set_aside_is_pointed_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "replaced").mkdir()
    assert main(["--dataset", "synthetic", *TINY, "--out", str(tmp_path), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f"or move the run in {tmp_path / 'replaced'} back" in said
