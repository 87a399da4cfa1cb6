"""Which processors are known to be kept busy by torch's BLAS."""

from __future__ import annotations

import io

import pytest
import torch

from pointseg.ops.hardware import blas

AMD, INTEL = "AuthenticAMD", "GenuineIntel"


@pytest.mark.parametrize(
    ("vendor", "family", "known"),
    [(AMD, 25, True), (AMD, 26, False), (INTEL, 6, True), ("HygonGenuine", 24, False)],
)
def test_by_vendor_and_family(vendor, family, known, monkeypatch):
    first = f"processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\n"
    second = "\nprocessor\t: 1\nvendor_id\t: other\ncpu family\t: 1\n"
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.StringIO(first + second))
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    assert blas.fills_vectors.__wrapped__() == known
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not blas.fills_vectors.__wrapped__()


def test_unknown_without_the_kernels_list(monkeypatch):
    def missing(*_, **__):
        raise FileNotFoundError

    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr("builtins.open", missing)
    assert not blas.fills_vectors.__wrapped__()
