"""Whether the Triton kernels are taken: by device, type of numbers and switch."""

import torch

from pointseg.ops.convolution import triton_choice


class Cuda:
    """What is asked of rows before anything is computed."""

    device = torch.device("cuda", 0)
    dtype = torch.float16


def test_choice(monkeypatch):
    kernels = object()
    monkeypatch.setattr(triton_choice, "_supported", lambda device: True)
    monkeypatch.setattr(triton_choice, "_load", lambda: kernels)
    monkeypatch.delenv(triton_choice.SWITCH, raising=False)
    rows = Cuda()
    assert triton_choice.kernels_for(rows) is kernels
    assert triton_choice.kernels_for(torch.zeros(1)) is None
    monkeypatch.setenv(triton_choice.SWITCH, "0")
    assert triton_choice.kernels_for(rows) is None
    monkeypatch.setenv(triton_choice.SWITCH, "1")
    rows.dtype = torch.float64
    assert triton_choice.kernels_for(rows) is None
