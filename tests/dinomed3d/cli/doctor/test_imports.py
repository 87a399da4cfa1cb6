"""What doctor says of libraries that cannot be imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from dinomed3d.cli.doctor.devices import devices, triton
from dinomed3d.cli.doctor.encoder_weights import encoder_weights
from dinomed3d.cli.doctor.nnunet_lookups import nnunet
from dinomed3d.dataset.findings import Finding


class Broken:
    """Finds a module whose library does not load, which torch reports with an OSError."""

    def __init__(self, module: str) -> None:
        self.module = module

    def find_spec(self, name: str, *more: Any) -> None:
        if name == self.module:
            raise OSError("libcudnn.so:\ncannot open shared object file")


@pytest.mark.parametrize(
    ("module", "check", "topic"),
    [
        ("torch", lambda: [*devices(), *triton()], "devices"),
        ("dinomed3d.lifting.missing_weights", lambda: encoder_weights(unset="note"), "encoder"),
        ("nnunetv2.utilities.find_objects", nnunet, "nnU-Net"),
    ],
)
def test_an_import_that_fails_is_one_finding(
    module: str,
    check: Callable[[], Iterable[Finding]],
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(module), *sys.meta_path])
    (finding,) = check()
    assert (finding.topic, finding.state) == (topic, "error")
    assert "OSError: libcudnn.so: cannot open" in finding.says and finding.fix
