"""The Triton kernels against the plain path: gradients, types, channels, splits, what happens when they fail."""

import logging

import pytest
import torch

from pointseg.ops.convolution import triton_choice
from pointseg.ops.convolution.grid import Grid
from pointseg.ops.convolution.sparse_convolution import convolve
from tests.pointseg.ops.convolution.test_sparse_convolution import random, scattered

TOLERANCE = {torch.float64: 1e-14, torch.float32: 2e-6, torch.float16: 3e-3, torch.bfloat16: 2e-2}


def results(along, channels, dtype):
    """Output and all gradients."""
    width, out_width = channels
    feat, weight = random(along.sources, width), random(out_width, along.size, width, seed=2)
    inputs = [t.to(dtype).requires_grad_() for t in (feat, weight / 4, random(out_width, seed=3))]
    out = convolve(inputs[0], inputs[1], along, bias=inputs[2])
    grads = torch.autograd.grad(out, inputs, random(*out.shape, seed=4).to(dtype))
    return [out.detach(), *grads]


def compare(monkeypatch, kernels, along, channels, dtype=torch.float64):
    plain = results(along, channels, dtype)
    with monkeypatch.context() as patch:
        patch.setattr(triton_choice, "kernels_for", lambda rows: kernels)
        found = results(along, channels, dtype)
    for ours, theirs in zip(found, plain, strict=True):
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        error = (ours.double() - theirs.double()).abs().max()
        assert error <= TOLERANCE[dtype] * theirs.double().abs().max()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_strided_and_back_in_every_type(dtype, device_blocks, monkeypatch):
    """Two tiles of voxels, less than one of cells."""
    strided = scattered(0.36).coarser()[1]
    compare(monkeypatch, device_blocks, strided, (3, 20), dtype)
    compare(monkeypatch, device_blocks, strided.transposed, (3, 20), dtype)


@pytest.mark.parametrize("channels", [(48, 6), (6, 100), (70, 40)])
def test_channels_that_fill_no_block_or_several(channels, device_blocks, monkeypatch):
    along = scattered(0.03, batches=1).coarser()[1]
    compare(monkeypatch, device_blocks, along, channels)


@pytest.mark.parametrize("turned", [False, True])
def test_submanifold(turned, interpreted, monkeypatch):
    along = scattered(0.36).kernel_map(3)
    assert along.targets > 128
    compare(monkeypatch, interpreted, along.transposed if turned else along, (3, 4))


def test_sums_in_splits(interpreted, monkeypatch):
    """More splits than some tile has offsets, and than some offset has tiles."""
    monkeypatch.setattr(interpreted, "_splits", lambda *_: 4)
    compare(monkeypatch, interpreted, scattered(0.36).coarser()[1], (3, 4))
    compare(
        monkeypatch, interpreted, scattered(0.36).coarser()[1].transposed, (3, 4), torch.float16
    )


@pytest.mark.parametrize(
    ("programs", "steps", "expected"),
    [(1, 27, 16), (1, 1, 1), (1, 0, 1), (100, 27, 2), (10_000, 27, 1)],
)
def test_sums_are_split_until_the_device_is_full(
    programs, steps, expected, interpreted, monkeypatch
):
    monkeypatch.setattr(interpreted, "_processors", lambda device: 100)
    assert interpreted._splits(programs, steps, torch.device("cpu")) == expected


def test_half_precision_is_summed_in_float32(interpreted, monkeypatch):
    """4096 + 27 ones: in float16 the sum would stay at 4096, whose neighbour is 4100."""
    grid = Grid(torch.cartesian_prod(*[torch.arange(3)] * 3), torch.zeros(27, dtype=torch.long))
    feat, weight = torch.ones(27, 1).half(), torch.ones(1, 27, 1).half()
    weight[0, 0] = 4096
    monkeypatch.setattr(triton_choice, "kernels_for", lambda rows: interpreted)
    out = convolve(feat, weight, grid.kernel_map(3), bias=torch.tensor([2.0]))
    assert out[13].item() == 4124  # 4096 + 26 + 2


def test_float32_is_multiplied_as_torch_says(interpreted, monkeypatch):
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    try:
        for allowed, name in ((True, "tf32"), (False, "ieee")):
            matmul.allow_tf32 = allowed
            assert interpreted._precision(torch.float32) == name
            assert interpreted._precision(torch.float16) == "ieee"
    finally:
        matmul.allow_tf32 = before


@pytest.mark.parametrize("backward", [False, True])
def test_kernels_that_fail_are_given_up_with_one_warning(
    backward, interpreted, monkeypatch, caplog
):
    """And training goes on with the same numbers."""
    given_up = []
    monkeypatch.setattr(triton_choice, "_given_up", given_up)
    monkeypatch.setattr(
        triton_choice, "kernels_for", lambda rows: None if given_up else interpreted
    )
    failure = interpreted.FAILURES[1](300_000, 100_000, "shared memory")

    def fail(*_):
        raise failure

    monkeypatch.setattr(interpreted, "weight_gradient" if backward else "multiply", fail)
    along = scattered(0.05).coarser()[1]
    with caplog.at_level(logging.WARNING):
        found = results(along, (3, 4), torch.float64)
        results(along, (3, 4), torch.float64)
    assert len(caplog.records) == 1 and "shared memory" in caplog.text
    for ours, theirs in zip(found, results(along, (3, 4), torch.float64), strict=True):
        assert torch.allclose(ours, theirs)


def test_other_errors_are_not_hidden(interpreted, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(interpreted, "multiply", fail)
    monkeypatch.setattr(triton_choice, "kernels_for", lambda rows: interpreted)
    with pytest.raises(torch.OutOfMemoryError):
        results(scattered(0.05).coarser()[1], (3, 4), torch.float64)
