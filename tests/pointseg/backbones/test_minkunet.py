"""MinkUNet: Pointcept's numbers, invariances, levels, errors."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pointseg.backbones.minkunet import MinkUNet
from pointseg.cloud import Cloud, collate


def cloud_of(grid_coord, feat, offset=None):
    ends = offset if offset is not None else torch.tensor([len(feat)])
    return Cloud(coord=grid_coord * 0.02, grid_coord=grid_coord, feat=feat, offset=ends)


def blob(seed=0, channels=3, density=0.15):
    """One cloud in random order."""
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(20, 18, 14, generator=generator) < density).nonzero()
    cells = cells[torch.randperm(len(cells), generator=generator)]
    return cloud_of(cells, torch.randn(len(cells), channels, generator=generator))


def tiny(**settings):
    torch.manual_seed(0)
    config = {
        "in_channels": 3,
        "base_channels": 4,
        "channels": (4, 6, 8, 10, 7, 9, 11, 5),
        "layers": (1, 2, 1, 1, 1, 1, 2, 1),
    }
    return MinkUNet(**{**config, **settings}).eval()


@pytest.fixture
def golden(shared):
    folder = shared / "golden" / "sparse_unet"
    net = MinkUNet(**json.loads((folder / "config.json").read_text()))
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    values = {key: torch.from_numpy(array) for key, array in np.load(folder / "io.npz").items()}
    return net.eval(), values


def test_as_pointcept(golden):
    net, values = golden
    with torch.no_grad():
        out = net(cloud_of(values["grid_coord"], values["feat"], values["offset"])).feat
    assert (out - values["out"]).abs().max() < 1e-6


def test_full_size():
    with torch.device("meta"):
        net = MinkUNet(in_channels=6)
    assert (
        round(sum(p.numel() for p in net.parameters()) / 1e6, 1) == 39.2
    )  # as PTv3's paper counts
    assert net.out_channels == 96
    assert net.level_channels == (96, 96, 128, 256, 256)


@pytest.mark.parametrize("num_classes", [0, 2])
def test_widths_are_as_stated(num_classes):
    net, cloud = tiny(num_classes=num_classes), blob()
    features = net(cloud)
    assert features.feat.shape == (len(cloud), net.out_channels)
    assert net.level_channels == (num_classes or 5, 11, 9, 7, 10)
    assert tuple(level.feat.shape[1] for level in features.levels) == net.level_channels
    assert features.levels[0].feat is features.feat


def test_levels_are_pooled_along_their_parents():
    cloud = collate([blob(0), blob(1)])
    levels = tiny()(cloud).levels
    assert levels[-1].parent is None
    assert torch.equal(levels[0].coord, cloud.coord) and torch.equal(levels[0].offset, cloud.offset)
    for fine, coarse in zip(levels, levels[1:], strict=False):
        assert torch.equal(coarse.grid_coord[fine.parent], fine.grid_coord // 2)
        assert set(fine.parent.tolist()) == set(range(len(coarse.feat)))
        for row in (0, len(coarse.feat) - 1):
            mean = fine.coord[fine.parent == row].mean(0)
            assert torch.allclose(coarse.coord[row], mean)
        # no parent in another cloud
        first = fine.offset[0]
        assert (fine.parent[:first] < coarse.offset[0]).all()
        assert (fine.parent[first:] >= coarse.offset[0]).all()
        assert coarse.offset[-1] == len(coarse.feat)


def test_a_cloud_is_the_same_alone_and_in_a_batch():
    net, clouds = tiny(), [blob(0), blob(1)]
    together = net(collate(clouds)).feat
    alone = torch.cat([net(cloud).feat for cloud in clouds])
    assert torch.allclose(together, alone, atol=1e-5)


def test_moved_by_whole_cells_of_the_coarsest_level():
    net, cloud = tiny(), blob()
    moved = cloud_of(cloud.grid_coord + torch.tensor([16, 0, 32]), cloud.feat)
    assert torch.allclose(net(moved).feat, net(cloud).feat, atol=1e-5)


def test_every_parameter_learns():
    net = tiny(num_classes=2).train()
    net(collate([blob(0), blob(1)])).feat.square().sum().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_under_autocast():
    net, cloud = tiny().train(), blob()
    exact = net(cloud).feat
    with torch.autocast("cpu", torch.bfloat16):
        feat = net(cloud).feat
    assert feat.dtype == torch.bfloat16
    assert (feat - exact).abs().max() < 0.05 * exact.abs().max()
    feat.float().square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("training", [False, True])
def test_tiny_clouds(count, training):
    net, cloud = tiny().train(training), cloud_of(torch.full((count, 3), 5), torch.ones(count, 3))
    feat = net(cloud).feat
    feat.sum().backward()
    assert feat.shape == (count, 5) and torch.isfinite(feat).all()


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="'channels' and 'layers'"):
        tiny(layers=(1, 1))
    cloud = blob()
    with pytest.raises(ValueError, match="voxel"):
        tiny()(cloud_of(cloud.grid_coord // 2, cloud.feat))
