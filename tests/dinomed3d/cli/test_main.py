"""The console command: what it prints, what it costs, how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dinomed3d.cli.doctor.folders import NNUNET_FOLDERS
from dinomed3d.cli.main import VERBS, main
from tests import ROOT

OURS = ("DINOMED3D_", "nnUNet_", "HF_HUB_OFFLINE")
"""Beginnings of the names of variables that commands read."""
HEAVY = {"torch", "numpy", "SimpleITK", "nnunetv2", "monai", "timm", "matplotlib", "pandas"}


def python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        *([Path(verb.__file__).stem, "--help"] for verb in VERBS),
    ],
)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    ran = python(
        "import sys\n"
        "from dinomed3d.cli.main import main\n"
        "try:\n"
        f"    main({words})\n"
        "finally:\n"
        f"    print('loaded:', sorted({HEAVY} & set(sys.modules)))\n"
    )
    assert ran.returncode == 0, ran.stderr
    assert "usage: dinomed3d" in ran.stdout
    assert "loaded: []" in ran.stdout


def test_unknown_verb_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["operate"])
    assert stopped.value.code == 2
    assert "operate" in capsys.readouterr().err


def test_user_errors_are_one_line_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("something of the user's")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "is a file; name a folder" in printed.err


@pytest.mark.filterwarnings("default")  # those of nnU-Net's modules that it looks through
def test_doctor_names_what_is_unset_and_how_to_fix_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in list(os.environ):
        if name.startswith(OURS):
            monkeypatch.delenv(name)
    monkeypatch.setenv("DINOMED3D_WEIGHTS", "none")
    code, printed = main(["doctor"]), capsys.readouterr()
    assert code == 0, printed
    lines = printed.out.splitlines()
    assert all(line.startswith(("[ok]", "[note]", "[error]", "        fix: ")) for line in lines), (
        lines
    )
    for name in NNUNET_FOLDERS:
        at = lines.index(f"[note]  {name}: not set; needed for planning and training only")
        assert lines[at + 1].startswith(f"        fix: export {name}=")
    for topic in ("python", "torch", "nnunetv2", "timm", "monai", "SimpleITK", "device cpu"):
        assert any(line.split("] ")[-1].strip().startswith(topic) for line in lines), topic
    assert any("weights: none" in line for line in lines)
