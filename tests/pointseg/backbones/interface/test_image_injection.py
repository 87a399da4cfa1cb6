"""Features of images inside backbones: pooled by hand, injected in each kind of decoder, left out, refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pointseg.backbones import build_backbone
from pointseg.backbones.interface.image_injection import ImageBranch, pool_images
from pointseg.ops.grouping.segments import Segments
from pointseg.ops.hardware.pieces import decided_for
from tests.pointseg.backbones.clouds import cloud, permuted
from tests.pointseg.backbones.ptv3.test_point_transformer_v3 import TINY

CONFIGS = {
    "ptv3": TINY,
    "minkunet": dict(in_channels=6, base_channels=4, channels=(6, 8, 7, 5), layers=(1, 1, 1, 1)),
    "pointnext": dict(width=8, blocks=(1, 0), strides=(4, 4), radius_m=0.06, neighbours=8),
    "sonata": dict(**TINY, in_channels=6, enc_mode=False),
}
NAMES = pytest.mark.parametrize("name", list(CONFIGS))
POOLINGS = pytest.mark.parametrize("pooling", ["max", "masked_max", "masked_mean"])


def network(name, seed=0, **config):
    torch.manual_seed(seed)
    return build_backbone(name, **{**CONFIGS[name], **config})


def taught(name, **config):
    """With running statistics of its own, so that no channel is dead."""
    net = network(name, image_channels=3, **config)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d):
            part.momentum = 1.0
    with torch.no_grad():
        net(cloud(seed=7), *shown(170, seed=7))
    return net.eval()


def shown(count, seed=0, share=0.5):
    """Random image features, zeros at unseen points."""
    generator = torch.Generator().manual_seed(seed)
    seen = torch.rand(count, generator=generator) < share
    return torch.randn(count, 3, generator=generator) * seen[:, None], seen


# Five points: 0, 1 and 2 in cell 0 (2 unseen), 3 in cell 1 (unseen), 4 in cell 2. The cells 0 and 1 in
# cell 0 of the coarsest level, cell 2 in its cell 1.
FEAT = torch.tensor([[-2.0, 4], [-4, 2], [0, 0], [0, 0], [-6, 5]])
SEEN = torch.tensor([True, True, False, False, True])
CELLS = [Segments.of(torch.tensor([0, 0, 0, 1, 2]), 3), Segments.of(torch.tensor([0, 0, 1]), 2)]


@pytest.fixture(params=["cpu", "cuda"])
def ways(request):
    """Those of a CPU, and those of other devices."""
    with decided_for(request.param):
        yield


@pytest.mark.usefixtures("ways")
@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        ("max", [[[0, 4], [0, 0], [-6, 5]], [[0, 4], [-6, 5]]]),
        ("masked_max", [[[-2, 4], [0, 0], [-6, 5]], [[-2, 4], [-6, 5]]]),
        ("masked_mean", [[[-3, 3], [0, 0], [-6, 5]], [[-3, 3], [-6, 5]]]),
    ],
)
def test_by_hand(pooling, wanted):
    levels = pool_images(FEAT, SEEN, CELLS, pooling)
    assert levels[0] is FEAT
    assert [level.tolist() for level in levels[1:]] == wanted


@pytest.mark.usefixtures("ways")
@POOLINGS
def test_the_missing_token_goes_where_nothing_is_seen(pooling):
    token = torch.tensor([3.0, 3])
    feat = torch.where(SEEN[:, None], FEAT, token)
    levels = pool_images(feat, SEEN, CELLS, pooling)
    assert levels[1][1].tolist() == [3, 3]
    if pooling != "max":
        assert levels[2].tolist() == pool_images(FEAT, SEEN, CELLS, pooling)[2].tolist()


@pytest.mark.usefixtures("ways")
@POOLINGS
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_as_a_loop(pooling, share):
    feat, seen = shown(60, share=share)
    index = torch.cat([torch.arange(12), torch.randint(12, (48,))])
    pooled = pool_images(feat, seen, [Segments.of(index, 12)], pooling)[1]
    for cell in range(12):
        inside = index == cell
        rows = feat[inside] if pooling == "max" else feat[inside & seen]
        want = torch.zeros(3) if not len(rows) else rows.amax(0)
        if pooling == "masked_mean" and len(rows):
            want = rows.mean(0)
        torch.testing.assert_close(pooled[cell], want)


@pytest.mark.usefixtures("ways")
@POOLINGS
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_types_stay_and_gradients_flow(pooling, dtype):
    feat = FEAT.to(dtype).requires_grad_()
    levels = pool_images(feat, SEEN, CELLS, pooling)
    assert all(level.dtype == dtype for level in levels)
    levels[-1].sum().backward()
    assert feat.grad is not None and feat.grad.isfinite().all()
    if pooling == "masked_mean":
        assert feat.grad[:, 0].tolist() == [0.5, 0.5, 0, 0, 1]
    if pooling == "masked_max":
        assert feat.grad[:, 0].tolist() == [1, 0, 0, 0, 1]


def test_the_branch_is_the_references():
    branch = ImageBranch(3, 4, 0.0)
    assert [key for key in branch.state_dict() if key.endswith("weight")] == [
        "1.weight",
        "2.weight",
    ]
    assert (branch[2].eps, branch[2].momentum) == (1e-3, 0.01)
    feat = torch.randn(50, 3)
    linear = feat @ branch[1].weight.T + branch[1].bias
    normal = (linear - linear.mean(0)) / (linear.var(0, unbiased=False) + 1e-3).sqrt()
    torch.testing.assert_close(branch(feat), nn.functional.gelu(normal), atol=1e-5, rtol=1e-5)


def test_whole_rows_are_dropped():
    torch.manual_seed(0)
    dropped = ImageBranch(3, 4, 0.4)[0](torch.ones(2000, 3))
    assert torch.equal(dropped, dropped[:, :1].expand(-1, 3))
    assert abs((dropped[:, 0] == 0).float().mean() - 0.4) < 0.05


@NAMES
@POOLINGS
def test_each_backbone_learns_from_images(name, pooling):
    net = network(name, image_channels=3, image_pooling=pooling, image_drop=0.2).train()
    feat, seen = shown(170)
    out = net(cloud(), feat, seen).feat
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    branches = {n: p for n, p in net.named_parameters() if "proj_image_feat" in n}
    levels = len(net.level_channels) - 1
    assert len(branches) == 4 * levels
    # a bias before batch normalisation does nothing
    dead = [n for n, p in branches.items() if not n.endswith("1.bias") and not p.grad.any()]
    assert not dead


@NAMES
@POOLINGS
def test_the_order_of_points_does_not_matter(name, pooling):
    points, net = cloud((120, 50)), taught(name, image_pooling=pooling)
    feat, seen = shown(170)
    rows = torch.cat([torch.randperm(120), 120 + torch.randperm(50)])
    with torch.no_grad():
        wanted = net(points, feat, seen).feat[rows]
        found = net(permuted(points, rows), feat[rows], seen[rows]).feat
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


@NAMES
def test_what_images_show_changes_features(name):
    net, points = taught(name), cloud()
    with torch.no_grad():
        one, other = net(points, *shown(170, 0)), net(points, *shown(170, 1))
    assert torch.equal(one.levels[-1].feat, other.levels[-1].feat)  # not at the bottleneck
    for a, b in zip(one.levels[:-1], other.levels[:-1], strict=True):
        assert (a.feat - b.feat).abs().max() > 1e-3


@NAMES
@pytest.mark.parametrize("pooling", ["masked_max", "masked_mean"])
def test_with_nothing_seen_masks_do_nothing(name, pooling):
    points, zeros = cloud(), torch.zeros(170, 3)
    nothing = torch.zeros(170, dtype=torch.bool)
    masked, plain = taught(name, image_pooling=pooling), taught(name)
    plain.load_state_dict(masked.state_dict())
    with torch.no_grad():
        found, wanted = masked(points, zeros, nothing), plain(points, zeros)
    assert torch.equal(found.feat, wanted.feat)


@NAMES
def test_with_everything_seen_a_masked_maximum_is_a_maximum(name):
    feat = torch.randn(170, 3)
    masked, plain = taught(name, image_pooling="masked_max"), taught(name)
    plain.load_state_dict(masked.state_dict())
    with torch.no_grad():
        found = masked(cloud(), feat, torch.ones(170, dtype=torch.bool))
        assert torch.equal(found.feat, plain(cloud(), feat).feat)


@NAMES
def test_without_images_the_network_is_as_ever(name):
    with_images, without = network(name, image_channels=3), network(name)
    keys = [key for key in with_images.state_dict() if "proj_image_feat" not in key]
    assert keys == list(without.state_dict())
    assert with_images.image_channels == 3 and without.image_channels is None
    without.load_state_dict({key: with_images.state_dict()[key] for key in keys})
    without.train()(cloud()).feat.sum().backward()


@NAMES
def test_injection_at_every_level_of_the_decoder(name):
    points, net = cloud((40,)), taught(name)
    nothing, one = torch.zeros(40, 3), torch.zeros(40, 3)
    one[7] = 5.0
    found = {}
    for part, module in net.named_modules():
        if isinstance(module, ImageBranch):
            module.register_forward_hook(
                lambda _, given, __, part=part: found.setdefault(part, []).append(given[0])
            )
    with torch.no_grad():
        features = net(points, nothing), net(points, one)
    row = torch.tensor([7])
    rows = [row]
    for level in features[0].levels[:-2]:
        rows.append(level.parent[rows[-1]])
    # of each level one row is other: the one that point 7 is in
    changed = [(a != b).any(1).nonzero()[:, 0] for a, b in found.values()]
    assert sorted(len(a) for a, _ in found.values()) == sorted(
        len(level.feat) for level in features[0].levels[:-1]
    )
    by_size = sorted(zip(found.values(), changed, strict=True), key=lambda x: -len(x[0][0]))
    assert all(torch.equal(c, r) for (_, c), r in zip(by_size, rows, strict=True))


MASKED = {"image_channels": 3, "image_pooling": "masked_max"}


@NAMES
@pytest.mark.parametrize(
    ("config", "given", "named"),
    [
        ({}, lambda feat, seen: (feat, None), "'image_feat'"),
        ({}, lambda feat, seen: (None, seen), "'image_seen'"),
        (MASKED, lambda feat, seen: (), "'image_feat'"),
        (MASKED, lambda feat, seen: (feat,), "'image_seen'"),
        (MASKED, lambda feat, seen: (feat, seen.float()), "'image_seen'"),
        (MASKED, lambda feat, seen: (feat, seen[:3]), "'image_seen'"),
    ],
)
def test_what_is_refused(name, config, given, named):
    with pytest.raises(ValueError, match=named):
        network(name, **config)(cloud(), *given(*shown(170)))


@NAMES
def test_other_pooling_and_channels_are_refused(name):
    with pytest.raises(ValueError, match="'image_pooling'"):
        network(name, image_pooling="min")
    with pytest.raises(ValueError, match="'feat'"):
        network(name)(cloud(channels=4))
