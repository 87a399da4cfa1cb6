"""What doctor says of extras."""

from __future__ import annotations

import importlib.metadata
import re
from types import SimpleNamespace

import pytest

from dinomed3d.cli.doctor import extras
from tests import ROOT


def installed(monkeypatch: pytest.MonkeyPatch, requirement: str, versions: dict[str, str]) -> None:
    """A package with one extra, and which packages there are."""

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    wanted = ["torch", f"{requirement}; extra == 'dicom'", "pytest; extra == 'test'"]
    wanted += ["needed-by-all; python_version >= '3'"]  # of no extra
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
    (finding,) = extras.extras()
    assert (finding.topic, finding.state) == ("extra dicom", state)
    assert says in finding.says and fix in finding.fix and bool(fix) == bool(finding.fix)


def test_every_extra_says_what_it_is_for() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]\n")[2].partition("\n[")[0]
    named = set(re.findall(r"^([\w-]+) = \[", section, re.M))
    assert named - {*extras.OF_DEVELOPERS} <= extras.PURPOSES.keys()
