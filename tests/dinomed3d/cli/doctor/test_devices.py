"""What doctor says of devices."""

from __future__ import annotations

import sys

import pytest

from dinomed3d.cli.doctor.devices import devices, triton


def test_a_torch_that_cannot_be_imported_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (finding,) = [*devices(), *triton()]
    assert (finding.topic, finding.state) == ("devices", "error") and "torch" in finding.fix
