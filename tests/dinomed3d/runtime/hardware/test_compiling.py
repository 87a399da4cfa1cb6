"""Networks are compiled where nnU-Net compiles them, and where Triton has what it needs."""

import os
import shutil

import pytest

from dinomed3d.runtime.hardware import compiling
from dinomed3d.runtime.hardware.compiling import compiler


@pytest.fixture(autouse=True)
def complete(monkeypatch):
    monkeypatch.delenv("nnUNet_compile", raising=False)
    monkeypatch.setattr(compiling, "missing_for_triton", lambda: "")


@pytest.mark.parametrize(
    ("kind", "variable", "by_default", "backend"),
    [
        ("cuda", None, True, "inductor"),  # training
        ("cuda", None, False, None),  # prediction
        ("cuda", "True", False, "inductor"),
        ("cuda", "1", False, "inductor"),
        ("cuda", "f", True, None),
        ("cuda", "", True, None),  # set and empty is off, as in nnU-Net
        ("cpu", "true", True, None),
        ("mps", "true", True, None),
    ],
)
def test_as_nnunet_decides(kind, variable, by_default, backend, monkeypatch):
    if variable is not None:
        monkeypatch.setenv("nnUNet_compile", variable)
    found, why = compiler(kind, by_default=by_default)
    assert found == backend
    assert bool(why) == (backend is None)


def test_not_on_windows(monkeypatch):
    monkeypatch.setattr(compiling.os, "name", "nt")
    found, why = compiler("cuda", by_default=True)
    monkeypatch.undo()
    assert found is None and "Windows" in why


def test_by_default_only_where_triton_can_work(monkeypatch):
    monkeypatch.setattr(compiling, "missing_for_triton", lambda: "a C compiler")
    assert compiler("cuda", by_default=True) == (None, "Triton needs a C compiler")
    monkeypatch.setenv("nnUNet_compile", "true")  # who asks gets Triton's own error
    assert compiler("cuda", by_default=True)[0] == "inductor"


def test_what_is_missing(monkeypatch, tmp_path):
    monkeypatch.undo()
    there = {"triton": object(), "gcc": "/usr/bin/gcc"}
    monkeypatch.setattr(compiling.importlib.util, "find_spec", there.get)
    monkeypatch.setattr(shutil, "which", there.get)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compiling.sysconfig, "get_path", lambda name: os.fspath(tmp_path))
    assert "Python.h" in compiling.missing_for_triton()
    (tmp_path / "Python.h").touch()
    assert compiling.missing_for_triton() == ""
    del there["gcc"]
    assert "C compiler" in compiling.missing_for_triton()
    monkeypatch.setenv("CC", "cc")
    assert compiling.missing_for_triton() == ""
    del there["triton"]
    assert "package triton" in compiling.missing_for_triton()
