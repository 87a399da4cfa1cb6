"""The console command: what it prints, what it costs, how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dinomed3d.cli import doctor
from dinomed3d.cli.main import VERBS, main
from dinomed3d.cli.nnunet_commands import (
    FOLDERS,
    NnUNetCommands,
    find_command,
    last_error,
)
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.shell_words import make_folder
from tests import ROOT

HEAVY = {"torch", "numpy", "SimpleITK", "nnunetv2", "monai", "timm", "matplotlib", "pandas"}


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    ours = ("DINOMED3D_", "nnUNet_", "HF_HUB_OFFLINE")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)} | variables
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


def test_doctor_names_what_is_unset_and_how_to_fix_it() -> None:
    ran = python(
        "import sys; from dinomed3d.cli.main import main; sys.exit(main(['doctor']))",
        DINOMED3D_WEIGHTS="none",
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lines = ran.stdout.splitlines()
    assert all(line.startswith(("[ok]", "[note]", "[error]", "        fix: ")) for line in lines), (
        lines
    )
    for name in FOLDERS:
        at = lines.index(f"[note]  {name}: not set; needed for planning and training only")
        assert lines[at + 1].startswith(f"        fix: export {name}=")
    for topic in ("python", "torch", "nnunetv2", "timm", "monai", "SimpleITK", "device cpu"):
        assert any(line.split("] ")[-1].strip().startswith(topic) for line in lines), topic
    assert any("weights: none" in line for line in lines)


def test_doctor_refuses_a_folder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "absent"))
    finding = doctor._folder("nnUNet_results", unset="note")
    assert finding.state == "error"  # it is set, but wrong
    assert make_folder(tmp_path / "absent") in finding.fix


@pytest.mark.parametrize(
    ("setting", "state", "says"),
    [
        ("none", "note", "random numbers"),
        ("absent.pth", "error", "no such file"),
        ("cut.pth", "error", "truncated"),
        ("cut.safetensors", "error", "cannot be read"),
        ("good.safetensors", "ok", "1 tensors"),
    ],
)
def test_doctor_looks_at_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, state: str, says: str
) -> None:
    import numpy as np
    from safetensors.numpy import save_file

    monkeypatch.chdir(tmp_path)
    save_file({"norm.weight": np.ones(4, np.float32)}, "good.safetensors")
    Path("cut.safetensors").write_bytes(Path("good.safetensors").read_bytes()[:30])
    Path("cut.pth").write_bytes(b"PK\x03\x04 and no more")
    monkeypatch.setenv("DINOMED3D_WEIGHTS", setting)
    monkeypatch.delenv("DINOMED3D_ENCODER", raising=False)
    *_, weights = doctor._weights(unset="note")
    assert (weights.state, weights.topic) == (state, "weights")
    assert says in weights.says


def test_doctor_knows_the_hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("DINOMED3D_WEIGHTS", "DINOMED3D_ENCODER"):
        monkeypatch.delenv(name, raising=False)
    *_, absent = doctor._weights(unset="note")
    assert absent.state == "note" and "training only" in absent.says
    assert list(doctor._weights(unset="error"))[-1].state == "error"
    with monkeypatch.context() as context:
        context.setenv("DINOMED3D_WEIGHTS", "hub")  # asked for, and not there
        assert list(doctor._weights(unset="note"))[-1].state == "error"
    assert absent.says.startswith("hub: timm/vit_small_patch16_dinov3")
    assert "DINOMED3D_WEIGHTS=FILE" in absent.fix
    assert "DINOMED3D_ENCODER=vit_small_patch14_dinov2" in absent.fix  # needs no licence

    repository = absent.says.split("hub: ")[1].split(",")[0]
    cache = tmp_path / f"models--{repository.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc")
    (cache / "snapshots" / "abc").mkdir(parents=True)
    (cache / "snapshots" / "abc" / "model.safetensors").write_bytes(b"weights")
    *_, present = doctor._weights(unset="error")
    assert present.text() == f"[ok]    weights: hub: {repository}, in the cache"


def test_doctor_refuses_an_unknown_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DINOMED3D_TESTS_NEED_SHARED", raising=False)  # of the tests themselves
    monkeypatch.setenv("DINOMED3D_ENCODER", "vit_enormous")
    (finding,) = doctor._weights(unset="note")
    assert finding.state == "error"
    assert "vit_enormous" in finding.says
    assert "vit_small_patch16_dinov3" in finding.fix


def fake_command(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    script = folder / "nnUNetv2_fake"
    script.write_text(f"#!{sys.executable}\nimport os, sys\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


posix = pytest.mark.skipif(os.name != "posix", reason="the fake command is a script with a #! line")


@posix
def test_stock_runs_with_its_folders_and_follows_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
print(os.environ["nnUNet_raw"], os.environ.get("DINOMED3D_COMPONENTS"), os.environ["DINOMED3D_SLICES"])
print(*sys.argv[1:], end="\\r")
"""
    fake_command(tmp_path, monkeypatch, body)
    monkeypatch.setenv("DINOMED3D_COMPONENTS", "encoder")  # the caller's own; must not leak in
    lines: list[str] = []
    stock = NnUNetCommands(root=tmp_path, settings={"DINOMED3D_SLICES": "5"})
    log = tmp_path / "log"
    assert stock.run("nnUNetv2_fake", ["-d", "900"], log=log, watch=lines.append) > 0
    assert lines == [f"{tmp_path / 'nnUNet_raw'} None 5", "-d 900"]
    assert log.read_text().splitlines() == lines


@posix
def test_a_failing_command_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(tmp_path, monkeypatch, "raise RuntimeError('no weights configured')")
    with pytest.raises(UserError) as caught:
        NnUNetCommands(root=tmp_path).run("nnUNetv2_fake", [], log=tmp_path / "fake.log")
    assert "nnUNetv2_fake failed (exit code 1)" in str(caught.value)
    assert "RuntimeError: no weights configured" in str(caught.value)
    assert str(tmp_path / "fake.log") in str(caught.value)


@posix
def test_an_interrupted_command_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_command(tmp_path, monkeypatch, "import time; print(os.getpid()); time.sleep(60)")
    seen: list[int] = []

    def interrupt(line: str) -> None:
        seen.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        NnUNetCommands(root=tmp_path).run(
            "nnUNetv2_fake", [], log=tmp_path / "log", watch=interrupt
        )
    with pytest.raises(ProcessLookupError):
        os.kill(seen[0], 0)


def test_an_absent_command_says_what_to_install() -> None:
    with pytest.raises(UserError, match="pip install nnunetv2"):
        find_command("nnUNetv2_operate")


def test_last_error() -> None:
    traceback = "Traceback:\n  File x\nValueError: patch is too small\nResource tracker: leaked\n"
    assert last_error(traceback) == "ValueError: patch is too small"
    worker = "OSError: disk full\nRuntimeError: Some background worker is 6 feet under. Yuck.\n"
    assert last_error(worker) == "OSError: disk full"
    assert last_error("one\ntwo\n\n") == "two"
    assert last_error("") == "no output"
