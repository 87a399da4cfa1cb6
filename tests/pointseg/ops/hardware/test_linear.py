"""Linear layers by way of convolutions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pointseg.ops.hardware.linear import Linear, _by_convolution, linear


@pytest.fixture(autouse=True)
def slow_blas(monkeypatch):
    """Whatever processor this is."""
    monkeypatch.setattr("pointseg.ops.hardware.linear.fills_vectors", lambda: False)


def layer(channels=8, width=5, bias=True, seed=0):
    torch.manual_seed(seed)
    return Linear(channels, width, bias=bias)


# few rows; a multiple of 16; several steps and a rest
COUNTS = [0, 1, 30, 512, 527, 8192, 16400 + 3]


def test_by_hand():
    weight = torch.tensor([[1.0, 2.0], [0.0, -1.0]])
    feat = torch.arange(1200.0).view(600, 2)
    out = linear(feat, weight, torch.tensor([10.0, 0.0]))
    assert out[[0, 1, 599]].tolist() == [[12, -1], [18, -3], [1198 + 2 * 1199 + 10, -1199]]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("bias", [False, True])
def test_as_torchs(count, bias):
    ours = layer(bias=bias)
    feat = torch.randn(count, 8)
    grad = torch.randn(count, 5)
    found, wanted = [], []
    for results, function in (
        (found, ours),
        (wanted, lambda f: F.linear(f, ours.weight, ours.bias)),
    ):
        rows = feat.clone().requires_grad_()
        out = function(rows)
        results.append(out)
        results.extend(torch.autograd.grad(out, [rows, *ours.parameters()], grad))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-3 if count > 5000 else 1e-4)


def test_rows_that_do_not_lie_side_by_side():
    ours = layer()
    feat = torch.randn(8, 700).T
    torch.testing.assert_close(ours(feat), F.linear(feat, ours.weight, ours.bias))


def test_only_what_is_asked_for_gets_a_gradient():
    ours = layer().requires_grad_(False)
    feat = torch.randn(600, 8, requires_grad=True)
    ours(feat).sum().backward()
    assert feat.grad is not None and ours.weight.grad is None and ours.bias.grad is None
    torch.testing.assert_close(feat.grad, ours.weight.sum(0).expand(600, 8))


def test_twice_the_same():
    ours, feat = layer(), torch.randn(3000, 8)
    assert torch.equal(ours(feat), ours(feat))


def test_autocast_and_other_types_are_torchs():
    ours, feat = layer(), torch.randn(600, 8)
    assert _by_convolution(feat, ours.weight) == torch.backends.mkldnn.is_available()
    with torch.autocast("cpu", torch.bfloat16):
        assert not _by_convolution(feat, ours.weight)
        assert ours(feat).dtype == torch.bfloat16
    assert layer().double()(feat.double()).dtype == torch.float64
    assert not _by_convolution(feat[:511], ours.weight)


def test_the_parameters_are_those_of_a_linear_layer():
    ours, theirs = layer(), torch.nn.Linear(8, 5)
    theirs.load_state_dict(ours.state_dict())
    feat = torch.randn(600, 8)
    torch.testing.assert_close(ours(feat), theirs(feat))
