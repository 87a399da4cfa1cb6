"""The demo's steps, with commands that do nothing; the whole of it is what .ci/run executes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from dinomed3d.cli import main as main_module
from dinomed3d.cli.demo.nnunet_commands import NnUNetCommands
from dinomed3d.cli.demo.phantom import LABELS, PhantomSpec
from dinomed3d.cli.demo.steps import DemoSpec, run_demo


def test_steps_are_counted_and_the_report_is_that_of_predict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands that only leave what the demo reads of theirs."""
    ran: list[tuple[str, list[str]]] = []

    def run(commands: NnUNetCommands, command: str, words: Sequence[str], **more: Any) -> float:
        ran.append((command, list(words)))
        if command == "dinomed3d":
            values = dict(zip(words[1::2], words[2::2], strict=True))
            shutil.copytree(Path(values["-i"]).parent / "labelsTs", values["-o"])
            more["watch"]("[1/2] phantom_005: 1.0 s, about 1 s left")
        if command == "nnUNetv2_evaluate_simple":
            dice = {str(v): {"Dice": 1.0} for v in LABELS.values()}
            Path(words[words.index("-o") + 1]).write_text(json.dumps({"mean": dice}))
        if command == "pointseg-train":
            rooms = Path(words[words.index("--out") + 1])
            (rooms / "pictures").mkdir(parents=True)
            (rooms / "pictures" / "room.png").touch()
            (rooms / "metrics.csv").write_text("step,val_voxel_miou\n5,0.5\n")
        return 1.0

    monkeypatch.setattr(NnUNetCommands, "run", run)
    phantom = PhantomSpec(training_cases=5, test_cases=2, shape_zyx=(8, 16, 20))
    result = run_demo(DemoSpec(out=tmp_path / "demo", device="cpu", phantom=phantom))
    said = capsys.readouterr().err.splitlines()
    assert [line[:5] for line in said if line[0] == "["] == [f"[{k}/6]" for k in range(1, 7)]
    assert "  [1/2] phantom_005: 1.0 s, about 1 s left" in said
    (words,) = (words for command, words in ran if command == "dinomed3d")
    asked = main_module._parser().parse_args(words)
    assert asked.verb == "predict" and asked.device == "cpu" and asked.folds == ["0"]
    assert result.report_page == Path(asked.out) / "report.html"
    assert result.report().splitlines()[-1].endswith(str(result.report_page))
    assert all(mask.is_file() for mask in (*result.masks, result.overlay))
