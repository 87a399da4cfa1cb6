"""What doctor says of folders that are absent, and of disks and shared memory that are nearly full."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from dinomed3d.cli.doctor import folders
from dinomed3d.runtime.messages.shell_words import make_folder

Usage = namedtuple("Usage", "total used free")
GIB = 2**30


def usage(free: float) -> Any:
    return lambda path: Usage(2 * free * GIB, free * GIB, free * GIB)


def test_little_shared_memory_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(folders, "SHARED", tmp_path)
    monkeypatch.setattr(folders.shutil, "disk_usage", usage(0.0625))
    (finding,) = folders.shared_memory()
    assert finding.state == "note" and "--shm-size" in finding.fix
    monkeypatch.setattr(folders.shutil, "disk_usage", usage(8))
    (finding,) = folders.shared_memory()
    assert finding.state == "ok" and "8 of 16 GiB" in finding.says
    monkeypatch.setattr(folders, "SHARED", tmp_path / "none")
    assert not list(folders.shared_memory())


@pytest.mark.parametrize(("free", "state"), [(19, "note"), (21, "ok")])
def test_a_disk_that_is_nearly_full(free: float, state: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setattr(folders.shutil, "disk_usage", usage(free))
    finding = folders.nnunet_folder("nnUNet_results", unset="note")
    assert finding.state == state and f"{free} GiB free" in finding.says


def test_raw_data_may_lie_on_a_full_disk_that_is_read_only(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(folders.shutil, "disk_usage", usage(1))
    for name in ("nnUNet_raw", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    assert folders.nnunet_folder("nnUNet_raw", unset="note").state == "ok"
    monkeypatch.setattr(folders.os, "access", lambda path, mode: False)
    assert folders.nnunet_folder("nnUNet_raw", unset="note").state == "note"
    assert folders.nnunet_folder("nnUNet_results", unset="note").state == "error"


def test_doctor_refuses_a_folder_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "absent"))
    finding = folders.nnunet_folder("nnUNet_results", unset="note")
    assert finding.state == "error"  # it is set, but wrong
    assert make_folder(tmp_path / "absent") in finding.fix
