"""The layers of PointNeXt are those that are written out for every pair of points."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pointseg.backbones.pointnext.layers import (
    Abstraction,
    InvertedResidual,
    NeighbourLayer,
    Neighbours,
    Propagation,
)
from pointseg.ops.grouping.neighbour_features import interpolate


def near(queries=30, sources=50, k=6, seed=0, far=0.0):
    """Random neighbours, some of them repeated as padding is."""
    generator = torch.Generator().manual_seed(seed)
    indices = torch.randint(sources, (queries, k), generator=generator)
    indices[::2, 4:] = indices[::2, :1]
    source = torch.randn(sources, 3, generator=generator) + far
    return Neighbours(indices, torch.randn(queries, 3, generator=generator) + far, source)


def pairs(feat, group):
    """(N, k, 3 + C) steps and features, as the paper has them."""
    step = group.source[group.indices] - group.query[:, None]
    return torch.cat([step, feat[group.indices]], 2)


def seeded(module):
    """Weights of both signs, running statistics that are not the initial ones."""
    generator = torch.Generator().manual_seed(4)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d):
            for values in (part.weight, part.bias, part.running_mean):
                values.data = torch.randn(values.shape, generator=generator)
            part.running_var.uniform_(0.5, 2, generator=generator)
    return module


def written_out(layer, feat, group):
    """NeighbourLayer on all pairs."""
    found = layer.norm(layer.linear(pairs(feat, group)).flatten(0, 1))
    return found.view(*group.indices.shape, -1)


def assert_same(ours, theirs, mine, other):
    """Values, gradients of all parameters and running statistics of two copies of a module."""
    torch.testing.assert_close(mine, other, atol=2e-5, rtol=1e-4)
    weight = torch.randn(mine.shape, generator=torch.Generator().manual_seed(9))
    (mine * weight).sum().backward()
    (other * weight).sum().backward()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=2e-4, rtol=2e-3, msg=name)
    for (name, a), b in zip(ours.named_buffers(), theirs.buffers(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4, msg=name)


@pytest.fixture
def feat():
    return torch.randn(50, 8, generator=torch.Generator().manual_seed(1)) + 2


def test_by_hand():
    layer = NeighbourLayer(1, 2).eval()
    # first channel: x of the step plus the feature; second: minus the feature
    layer.linear.weight.data = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, -1]])
    source = torch.tensor([[0.0, 0, 0], [0.5, 0, 0]])
    group = Neighbours(torch.tensor([[0, 1], [1, 0]]), source, source)
    out = layer(torch.tensor([[10.0], [20.0]]), group) * (1 + layer.norm.eps) ** 0.5
    torch.testing.assert_close(out, torch.tensor([[20.5, -10], [20, -10]]))


@pytest.mark.parametrize("training", [True, False])
def test_neighbour_layer(feat, training):
    ours = seeded(NeighbourLayer(8, 5)).train(training)
    theirs = copy.deepcopy(ours)
    assert (ours.norm.weight < 0).any()
    mine, x = feat.clone().requires_grad_(), feat.clone().requires_grad_()
    other = written_out(theirs, x, near()).amax(1)
    assert_same(ours, theirs, ours(mine, near()), other)
    torch.testing.assert_close(mine.grad, x.grad, atol=1e-4, rtol=1e-3)


def test_positions_keep_their_digits_far_from_the_origin(feat):
    layer = NeighbourLayer(8, 5).eval()
    # 300 radii away: 2^-16 radii is the last bit of float32
    torch.testing.assert_close(
        layer(feat, near(far=300.0)), layer(feat, near()), atol=1e-3, rtol=1e-4
    )


def test_half_precision_leaves_positions_alone(feat):
    layer, group = NeighbourLayer(8, 5).eval(), near(far=300.0)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(feat, group)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, layer(feat, group), atol=0.1, rtol=0)


def test_batch_statistics_need_two_pairs():
    layer = seeded(NeighbourLayer(8, 5))
    one = Neighbours(torch.tensor([[0]]), torch.zeros(1, 3), torch.zeros(1, 3))
    feat = torch.ones(1, 8)
    assert torch.equal(layer.train()(feat, one), layer.eval()(feat, one))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
def test_abstraction(feat, layers, training):
    ours = seeded(Abstraction(8, 6, layers)).train(training)
    theirs, group, stays = copy.deepcopy(ours), near(), torch.arange(30)
    found = written_out(theirs.group, feat, group)
    if layers == 2:
        hidden = theirs.second(F.relu(found).flatten(0, 1)).view(30, 6, 6)
        other = F.relu(hidden.amax(1) + theirs.skip(feat[stays]))
    else:
        other = F.relu(found).amax(1)
    assert_same(ours, theirs, ours(feat, group, stays), other)


def test_abstraction_in_pieces(feat, monkeypatch):
    module, args = seeded(Abstraction(8, 6, 2)).eval(), (feat, near(), torch.arange(30))
    with torch.no_grad():
        whole = module(*args)
        monkeypatch.setattr("pointseg.backbones.pointnext.layers._PIECE", 100)
        torch.testing.assert_close(module(*args), whole)


@pytest.mark.parametrize("training", [True, False])
def test_inverted_residual(feat, training):
    ours = seeded(InvertedResidual(8, 4)).train(training)
    theirs, group = copy.deepcopy(ours), near(queries=50)
    grouped = F.relu(written_out(theirs.group, feat, group)).amax(1)
    other = F.relu(feat + theirs.narrow(theirs.widen(grouped)))
    assert_same(ours, theirs, ours(feat, group), other)


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_propagation(feat, training, images):
    ours = seeded(Propagation(8, 4, 5, 3 if images else None, 0.0)).train(training)
    theirs = copy.deepcopy(ours)
    skip, seen = torch.rand(30, 4), torch.rand(30, 3)
    indices, distances = near(k=3).indices[:, :3], torch.rand(30, 3)
    other = theirs.fuse(torch.cat([interpolate(feat, indices, distances), skip], 1))
    if images:
        other = other + theirs.proj_image_feat(seen)
    shown = ours.proj_image_feat(seen) if images else None
    mine = ours(feat, skip, indices, distances, shown)
    assert_same(ours, theirs, mine, theirs.mix(other))
