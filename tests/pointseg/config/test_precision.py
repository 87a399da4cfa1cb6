"""The number format of a device, which may have a number."""

from __future__ import annotations

import pytest
import torch

from pointseg.config.precision import choose_precision, encoder_dtype


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_every_cuda_device_computes_alike(device: str) -> None:
    assert choose_precision("auto", device) == "float16"
    assert encoder_dtype("float16", device) == torch.bfloat16
    assert encoder_dtype("float32", device) is None


@pytest.mark.parametrize("device", ["cpu", "cpu:0", "mps"])
def test_others_compute_in_float32(device: str) -> None:
    assert choose_precision("auto", device) == "float32"
    assert encoder_dtype("float32", device) is encoder_dtype("float16", device) is None
