"""What doctor says of extras, shared memory and disks."""

from __future__ import annotations

import importlib.metadata
import re
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest

from dinomed3d.cli import doctor, machine_checks
from tests import ROOT

GIB = 2**30
Usage = namedtuple("Usage", "total used free")


def installed(monkeypatch: pytest.MonkeyPatch, requirement: str, versions: dict[str, str]) -> None:
    """A package with one extra, and which packages there are."""

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    wanted = ["torch", f"{requirement}; extra == 'dicom'", "pytest; extra == 'test'"]
    extras = SimpleNamespace(get_all=lambda key: ["dicom", "test"])
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: extras)
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: wanted)
    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize(
    ("requirement", "versions", "state", "says", "fix"),
    [
        ("json>=1", {"json": "2.0"}, "ok", "json 2.0, for DICOM", ""),
        ("json>=1", {}, "note", "json is not installed", "[dicom]"),
        ("json>=3", {"json": "2.0"}, "error", "needs >=3", "[dicom]"),
        ("no-such-module", {"no-such-module": "1"}, "error", "cannot be imported", "no-such"),
    ],
)
def test_extras(
    requirement: str,
    versions: dict[str, str],
    state: str,
    says: str,
    fix: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    installed(monkeypatch, requirement, versions)
    (finding,) = machine_checks.extras()
    assert (finding.topic, finding.state) == ("extra dicom", state)
    assert says in finding.says and fix in finding.fix and bool(fix) == bool(finding.fix)


def test_every_extra_says_what_it_is_for() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    extras = set(re.findall(r"^([\w-]+) = \[", section, re.M))
    assert extras - {*machine_checks.OF_DEVELOPERS} <= machine_checks.PURPOSES.keys()


def usage(free: float) -> Any:
    return lambda path: Usage(2 * free * GIB, free * GIB, free * GIB)


def test_little_shared_memory_is_said(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(machine_checks, "SHARED", tmp_path)
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", usage(0.0625))
    (finding,) = machine_checks.shared_memory()
    assert finding.state == "note" and "--shm-size" in finding.fix
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", usage(8))
    (finding,) = machine_checks.shared_memory()
    assert finding.state == "ok" and "8 of 16 GiB" in finding.says
    monkeypatch.setattr(machine_checks, "SHARED", tmp_path / "none")
    assert not list(machine_checks.shared_memory())


@pytest.mark.parametrize(("free", "state"), [(19, "note"), (21, "ok")])
def test_a_disk_that_is_nearly_full(free: float, state: str, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.setattr(machine_checks.shutil, "disk_usage", usage(free))
    finding = doctor._folder("nnUNet_results", unset="note")
    assert finding.state == state and f"{free} GiB free" in finding.says


def test_a_variable_that_nothing_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DINOMED3D_TESTS_NEED_SHARED", raising=False)  # of the tests themselves
    monkeypatch.setenv("DINOMED3D_WEIGTHS", "none")
    (finding,) = doctor._unknown_variables()
    assert finding.state == "error" and "did you mean DINOMED3D_WEIGHTS?" in finding.says
