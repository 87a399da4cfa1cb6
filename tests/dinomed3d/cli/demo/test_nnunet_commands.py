"""Commands run as a user would type them: their folders, output, failure and end."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from dinomed3d.cli.demo.nnunet_commands import NnUNetCommands, find_command, last_error
from dinomed3d.runtime.errors import UserError


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
