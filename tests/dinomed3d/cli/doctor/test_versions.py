"""What doctor says of versions."""

from __future__ import annotations

import importlib.metadata

import pytest

from dinomed3d.cli.doctor.versions import versions


def test_a_package_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: ["torch>=2.4"])
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "2.3")
    found = {finding.topic: finding for finding in versions()}
    assert found["torch"].state == "error" and found["torch"].fix == "pip install 'torch>=2.4'"
    assert found["timm"].state == "ok"  # no version is asked for
