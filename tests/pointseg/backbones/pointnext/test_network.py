"""PointNeXt: sizes, invariances, levels, images, errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from pointseg.backbones.pointnext.network import VARIANTS, PointNeXt
from pointseg.cloud import Cloud, collate

SIDE_M = 2.0**-5  # coordinates on a grid of binary fractions move without rounding


def room(seed=0, channels=3, count=500, size=24):
    """One cloud in random order, each point somewhere in a voxel of its own."""
    generator = torch.Generator().manual_seed(seed)
    number = torch.randperm(size**3, generator=generator)[:count]
    cells = torch.stack([number // size**2, number // size % size, number % size], 1)
    inside = torch.randint(1, 256, (count, 3), generator=generator) / 256
    return Cloud(
        coord=(cells + inside) * SIDE_M,
        grid_coord=cells,
        feat=torch.randn(count, channels, generator=generator),
        offset=torch.tensor([count]),
    )


def take(cloud, rows):
    return replace(
        cloud,
        coord=cloud.coord[rows],
        grid_coord=cloud.grid_coord[rows],
        feat=cloud.feat[rows],
        offset=torch.tensor([len(rows)]),
    )


def tiny(**settings):
    torch.manual_seed(0)
    config = {
        "in_channels": 3,
        "width": 8,
        "blocks": (1, 0, 2),
        "strides": (4, 4, 4),
        "radius_m": 0.12,
        "neighbours": 8,
    }
    net = PointNeXt(**{**config, **settings})
    norms = [part for part in net.modules() if isinstance(part, torch.nn.BatchNorm1d)]
    usual = [part.momentum for part in norms]
    for part in norms:
        torch.nn.init.uniform_(part.weight, -1, 2)
        part.momentum = 1.0
    # running statistics of a real cloud, so that no channel is dead
    cloud = room(3, net.in_channels)
    net(cloud, None if net.image_channels is None else torch.randn(500, net.image_channels))
    for part, momentum in zip(norms, usual, strict=True):
        part.momentum = momentum
    return net.eval()


VARIED = pytest.mark.parametrize(
    "settings",
    [{}, {"abstraction_layers": 2}, {"subsampling": "farthest"}],
    ids=["grid", "two-layers", "farthest"],
)


@pytest.mark.parametrize(("name", "millions"), [("S", 0.8), ("B", 3.8), ("L", 7.1), ("XL", 41.6)])
def test_sizes_are_those_of_the_paper(name, millions):
    with torch.device("meta"):
        net = PointNeXt(in_channels=4, **VARIANTS[name])
        head = torch.nn.Linear(net.out_channels, 13)
    count = sum(p.numel() for part in (net, head) for p in part.parameters())
    assert round(count / 1e6, 1) == millions


def test_the_default_is_the_largest():
    with torch.device("meta"):
        net, largest = PointNeXt(), PointNeXt(**VARIANTS["XL"])
    assert net.level_channels == (64, 128, 256, 512, 1024) and net.out_channels == 64
    assert [p.shape for p in net.parameters()] == [p.shape for p in largest.parameters()]


def test_no_parameter_counts_as_a_block():
    """Recipes train parameters named so at a tenth of the rate, which is meant for attention."""
    assert not [name for name, _ in tiny().named_parameters() if "block" in name]


@VARIED
def test_widths_are_as_stated(settings):
    net, cloud = tiny(**settings), room()
    features = net(cloud)
    assert features.feat.shape == (500, net.out_channels) == (500, 8)
    assert net.level_channels == (8, 16, 32, 64)
    assert tuple(level.feat.shape[1] for level in features.levels) == net.level_channels
    assert features.levels[0].feat is features.feat


@VARIED
def test_levels_are_parts_of_each_other(settings):
    cloud = collate([room(0), room(1, count=300)])
    levels = tiny(**settings)(cloud).levels
    assert levels[-1].parent is None
    assert torch.equal(levels[0].coord, cloud.coord) and torch.equal(levels[0].offset, cloud.offset)
    for number, (fine, coarse) in enumerate(zip(levels, levels[1:], strict=False)):
        assert coarse.offset[-1] == len(coarse.feat) < len(fine.feat)
        start = first = 0
        for end, last in zip(fine.offset.tolist(), coarse.offset.tolist(), strict=True):
            apart = (fine.coord[start:end, None] - coarse.coord[first:last]).norm(dim=2)
            parent = fine.parent[start:end, None] - first
            assert torch.equal(apart.gather(1, parent)[:, 0], apart.min(1).values)
            assert not apart.min(0).values.any()
            assert set(fine.parent[start:end].tolist()) == set(range(first, last))
            start, first = end, last
        inside = (coarse.coord / SIDE_M / 2 ** (number + 1)).long()
        assert torch.equal(coarse.grid_coord, inside)


def test_a_grid_keeps_one_point_per_cell_and_farthest_every_fourth():
    counts = [len(level.feat) for level in tiny()(room()).levels]
    cells = [len(torch.unique(room().grid_coord // side, dim=0)) for side in (1, 2, 4, 8)]
    assert counts == cells
    counts = [len(level.feat) for level in tiny(subsampling="farthest")(room()).levels]
    assert counts == [500, 125, 32, 8]


@VARIED
def test_order_of_points_does_not_matter(settings):
    net, cloud = tiny(**settings), room()
    order = torch.randperm(500, generator=torch.Generator().manual_seed(5))
    features, moved = net(cloud), net(take(cloud, order))
    assert torch.equal(moved.feat, features.feat[order])
    assert torch.equal(moved.levels[0].parent, features.levels[0].parent[order])
    for one, other in zip(features.levels[1:], moved.levels[1:], strict=True):
        assert torch.equal(one.feat, other.feat)


@VARIED
def test_moved_clouds_have_the_same_features(settings):
    net, cloud = tiny(**settings), room()
    cells = torch.tensor([8, 0, 16])  # whole cells of the coarsest level
    moved = replace(cloud, coord=cloud.coord + cells * SIDE_M, grid_coord=cloud.grid_coord + cells)
    assert torch.allclose(net(moved).feat, net(cloud).feat, atol=1e-5)
    lifted = replace(cloud, coord=cloud.coord + torch.tensor([-64.0, 0.5, 128.0]))
    assert torch.allclose(net(lifted).feat, net(cloud).feat, atol=1e-5)


@VARIED
def test_a_cloud_is_the_same_alone_and_in_a_batch(settings):
    net, clouds = tiny(**settings), [room(0), room(1, count=200), room(2, count=1)]
    together = net(collate(clouds)).feat
    alone = torch.cat([net(cloud).feat for cloud in clouds])
    assert torch.allclose(together, alone, atol=1e-5)


@VARIED
def test_features_depend_on_places(settings):
    net, cloud = tiny(**settings), room()
    assert net(cloud).feat.std(0).mean() > 0.1  # the random network is not dead
    stretched = replace(cloud, coord=cloud.coord * torch.tensor([1.0, 1, 0.5]))
    assert not torch.allclose(net(stretched).feat, net(cloud).feat, atol=1e-2)


@VARIED
def test_every_parameter_learns(settings):
    net = tiny(image_channels=5, **settings).train()
    cloud = collate([room(0), room(1)])
    out = net(cloud, torch.randn(1000, 5, generator=torch.Generator().manual_seed(0))).feat
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_two_steps_are_the_same_twice():
    def trained():
        net, cloud = tiny().train(), collate([room(0), room(1)])
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(2):
            optimizer.zero_grad()
            net(cloud).feat.square().mean().backward()
            optimizer.step()
        return net.state_dict()

    first, second = trained(), trained()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_half_precision():
    net, cloud = tiny().train(), room()
    with torch.autocast("cpu", torch.bfloat16):
        feat = net(cloud).feat
    feat.float().square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    full = net.eval()(cloud).feat
    with torch.autocast("cpu", torch.float16):
        half = net(cloud).feat.float()
    assert (half - full).abs().mean() < 0.05 * full.abs().mean()


@VARIED
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("training", [False, True])
def test_tiny_clouds(settings, count, training):
    net, cloud = tiny(**settings).train(training), take(room(), torch.arange(count))
    feat = net(cloud).feat
    feat.sum().backward()
    assert feat.shape == (count, 8) and torch.isfinite(feat).all()


@VARIED
def test_all_points_in_one_place(settings):
    one = take(room(), torch.zeros(40, dtype=torch.int64))
    feat = tiny(**settings)(one).feat
    assert torch.isfinite(feat).all() and torch.allclose(feat, feat[:1], atol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"in_channels": 0},
        {"width": 0},
        {"neighbours": 0},
        {"expansion": 0},
        {"blocks": (1, 1)},
        {"blocks": (1, -1, 0)},
        {"blocks": (), "strides": ()},
        {"radius_m": 0.0},
        {"abstraction_layers": 3},
        {"subsampling": "random"},
        {"strides": (4, 2, 4)},
        {"strides": (4, 0, 4), "subsampling": "farthest"},
    ],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"'{next(iter(settings))}'"):
        tiny(**settings)


def test_bad_clouds_are_refused():
    cloud = room()
    with pytest.raises(ValueError, match="finite"):
        tiny()(replace(cloud, coord=cloud.coord / 0))
    with pytest.raises(ValueError, match="'grid_coord'"):
        tiny()(replace(cloud, grid_coord=cloud.grid_coord - 3))
