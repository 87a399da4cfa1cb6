"""Point Transformer V3: numbers of its released code, and what holds for any weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pointseg.backbones.ptv3.block import DropPath
from pointseg.backbones.ptv3.point_transformer_v3 import PointTransformerV3
from pointseg.cloud import Cloud, collate
from pointseg.ops.grouping.segments import Segments
from tests.pointseg.backbones.clouds import cloud, permuted

TINY = dict(
    stride=(2, 2),
    enc_depths=(1, 1, 2),
    enc_channels=(8, 8, 16),
    enc_num_head=(2, 2, 4),
    enc_patch_size=(16, 16, 16),
    dec_depths=(2, 1),
    dec_channels=(12, 8),
    dec_num_head=(3, 2),
    dec_patch_size=(16, 16),
)

# The reference shuffles the curves at each pooling even if its setting says not to. These are the sequences it
# drew for the fixtures, as far as they matter; found by trying all, stage by stage.
DRAWN = {
    "ptv3": [[0, 1, 2, 3], [2, 0, 1, 3], [3, 0, 1, 2], [0, 3, 1, 2], [0, 1, 2, 3]],
    "ditr": [[0, 1, 2, 3], [1, 0, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3], [0, 1, 2, 3]],
}


def tiny(seed=0, **config):
    torch.manual_seed(seed)
    network = PointTransformerV3(**{**TINY, **config})
    for name, buffer in network.named_buffers():
        if name.endswith("running_var"):
            buffer.uniform_(0.5, 2.0)
        elif name.endswith("running_mean"):
            buffer.normal_(std=0.3)
    return network.eval()


@pytest.mark.parametrize("name", ["ptv3", "ditr"])
def test_as_the_reference_at_every_recorded_stage(shared, name):
    folder = shared / "golden" / name
    golden = {key: torch.from_numpy(v) for key, v in np.load(folder / "io.npz").items()}
    network = PointTransformerV3(**json.loads((folder / "config.json").read_text())).eval()
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    network.curve_sequences = lambda: DRAWN[name]
    found = {}
    stages = [key.removeprefix("at:") for key in golden if key.startswith("at:")]
    for stage in stages:
        network.get_submodule(stage).register_forward_hook(
            lambda _, __, out, stage=stage: found.setdefault(stage, out)
        )
    points = Cloud(**{key: golden[key] for key in ("coord", "grid_coord", "feat", "offset")})
    with torch.no_grad():
        features = network(points, golden.get("lifted"))
    assert set(stages) == {"embedding", "enc.enc0", "enc.enc1", "enc.enc4", "dec.dec3", "dec.dec0"}
    for stage in stages:
        torch.testing.assert_close(found[stage], golden[f"at:{stage}"], rtol=0, atol=1e-5)
    torch.testing.assert_close(features.feat, golden["out"], rtol=0, atol=1e-5)


def test_the_full_size():
    with torch.device("meta"):
        network = PointTransformerV3(in_channels=6)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 46.2
    assert (network.in_channels, network.out_channels) == (6, 64)
    assert network.level_channels == (64, 64, 128, 256, 512)
    drops = [m.probability for m in network.modules() if isinstance(m, DropPath)]
    encoder, decoder = drops[:14], drops[14:]
    np.testing.assert_allclose(encoder, np.linspace(0, 0.3, 14), atol=1e-6)
    # decoder, coarsest stage first: linear by stage, falling within each
    np.testing.assert_allclose(decoder, np.linspace(0, 0.3, 8)[[7, 6, 5, 4, 3, 2, 1, 0]], atol=1e-6)


def test_levels_hang_together():
    points = cloud()
    network = tiny()
    features = network(points)
    assert [level.feat.shape[1] for level in features.levels] == [12, 8, 16]
    assert network.level_channels == (12, 8, 16)
    assert features.levels[0].feat is features.feat
    assert torch.equal(features.levels[0].coord, points.coord)
    for fine, coarse in zip(features.levels, features.levels[1:], strict=False):
        parent = fine.parent
        assert parent is not None and parent.max() == len(coarse.coord) - 1
        assert torch.equal(coarse.grid_coord[parent], fine.grid_coord >> 1)
        means = Segments.of(parent, len(coarse.coord)).reduce(fine.coord, "mean")
        torch.testing.assert_close(coarse.coord, means)
        ends = torch.searchsorted(fine.offset, torch.arange(len(parent)), right=True)
        assert torch.equal(ends, torch.searchsorted(coarse.offset, parent, right=True))
    assert features.levels[-1].parent is None


@pytest.mark.parametrize("config", [{}, {"enable_flash": False, "enable_rpe": True}])
def test_the_order_of_points_does_not_matter(config):
    points, network = cloud((90, 40)), tiny(**config)
    generator = torch.Generator().manual_seed(1)
    rows = torch.cat(
        [torch.randperm(90, generator=generator), 90 + torch.randperm(40, generator=generator)]
    )
    with torch.no_grad():
        wanted = network(points).feat[rows]
        torch.testing.assert_close(network(permuted(points, rows)).feat, wanted, rtol=0, atol=1e-5)


def test_clouds_of_a_batch_do_not_see_each_other():
    points, others, network = cloud((60,)), cloud((200, 7), seed=5), tiny()
    with torch.no_grad():
        # the depth of the curves, and so their shape, is that of the largest cloud
        alone = network(collate([points, cloud((7,), seed=9)])).feat[:60]
        together = network(collate([points, others])).feat[:60]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_predictions_do_not_vary_and_training_does():
    points, network = cloud(), tiny()
    assert torch.equal(network(points).feat, network(points).feat)
    assert network.curve_sequences() == [[0, 1, 2, 3]] * 3
    network.train()
    torch.manual_seed(0)
    drawn = [network.curve_sequences() for _ in range(3)]
    assert drawn[0] != drawn[1]
    assert all(sorted(stage) == [0, 1, 2, 3] for stages in drawn for stage in stages)
    torch.manual_seed(0)
    assert drawn == [network.curve_sequences() for _ in range(3)]
    network.shuffle_orders = False
    assert network.curve_sequences() == [[0, 1, 2, 3]] * 3


def test_every_parameter_learns():
    network = tiny(image_channels=5).train()
    points = cloud()
    network(points, torch.randn(len(points), 5)).feat.square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # a bias before batch normalisation does nothing
    assert not [name for name in without if "proj" not in name], without


@pytest.mark.parametrize(
    "config",
    [
        {"pre_norm": False},
        {"qkv_bias": False, "qk_scale": 0.2},
        {"enable_flash": False},
        {"enable_flash": False, "enable_rpe": True, "upcast_softmax": True},
        {"attn_drop": 0.2, "proj_drop": 0.2, "drop_path": 0.4},
        {"order": "hilbert"},
        {"stride": (4, 2)},
        {"mlp_ratio": 1.5},
    ],
)
def test_options_train(config):
    network = tiny(**config).train()
    network(cloud()).feat.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_without_flash_the_smallest_cloud_sets_the_window():
    points = cloud((60, 10))
    flash, dense = tiny(), tiny(enable_flash=False)
    narrow = tiny(enc_patch_size=(10, 16, 16), dec_patch_size=(10, 16))
    for network in (dense, narrow):
        network.load_state_dict(flash.state_dict())
    with torch.no_grad():
        first = [n.enc.get_submodule("enc0")(
            n.embedding(points.feat, voxels_of(points)), voxels_of(points)
        ) for n in (flash, dense, narrow)]  # fmt: skip
    torch.testing.assert_close(first[1], first[2])
    assert not torch.allclose(first[0], first[1], atol=1e-3)


def voxels_of(points):
    from pointseg.backbones.ptv3.serialization import SerializedVoxels

    return SerializedVoxels.of(points, ("z", "hilbert"), (0, 1))


def test_upcasting_changes_nothing_in_float32():
    points = cloud((60, 40))
    plain = tiny(enable_flash=False)
    careful = tiny(enable_flash=False, upcast_attention=True, upcast_softmax=True)
    with torch.no_grad():
        torch.testing.assert_close(plain(points).feat, careful(points).feat, rtol=0, atol=1e-5)


def test_autocast():
    points, network = cloud(), tiny()
    with torch.no_grad():
        wanted = network(points).feat
        with torch.autocast("cpu", torch.bfloat16):
            out = network(points).feat
    assert (out - wanted).abs().mean() < 0.1 * wanted.abs().mean()
    network.train()
    with torch.autocast("cpu", torch.bfloat16):
        network(points).feat.float().square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_without_gradients_the_same(monkeypatch):
    points, network = cloud((90, 60)), tiny()
    monkeypatch.setattr("pointseg.backbones.ptv3.block._MLP_ROWS", 32)
    with torch.no_grad():
        out = network(points).feat
    torch.testing.assert_close(out, network(points).feat, rtol=0, atol=1e-5)


def test_drop_path_drops_rows_and_keeps_the_mean():
    torch.manual_seed(0)
    drop = DropPath(0.3)
    out = drop(torch.ones(5000, 3))
    assert torch.equal(out, out[:, :1].expand(-1, 3))
    assert set(out.unique().tolist()) == {0.0, np.float32(1 / 0.7)}
    assert abs(out.mean() - 1) < 0.03
    assert drop.eval()(torch.ones(2, 2)).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("largest", "depths"), [(0, [1, 0, 0]), (62, [6, 5, 4]), (63, [7, 6, 5])])
def test_curves_are_as_deep_as_the_largest_coordinate_plus_one(largest, depths):
    points = cloud((30 if largest else 1,))
    points.grid_coord[:] = points.grid_coord.clamp(max=largest)
    points.grid_coord[0, 1] = largest
    voxels, _ = tiny().resolutions(points)
    assert [here.depth for here in voxels] == depths


@pytest.mark.parametrize("counts", [(1,), (1, 1), (2, 0, 30), (0, 1)])
@pytest.mark.parametrize("training", [False, True])
def test_tiny_clouds(counts, training):
    network = tiny().train(training)
    features = network(cloud(counts))
    assert features.feat.shape == (sum(counts), 12) and features.feat.isfinite().all()
    assert features.levels[-1].offset.shape == (len(counts),)
    features.feat.sum().backward()


def test_one_voxel_at_the_origin():
    points = cloud((1,))
    network = tiny()
    features = network(replace(points, grid_coord=torch.zeros_like(points.grid_coord)))
    assert features.feat.isfinite().all()


@pytest.mark.parametrize(
    ("config", "count", "change", "named"),
    [
        ({}, 0, lambda grid: grid, "'cloud'"),
        ({}, 170, lambda grid: grid + 70000, "'grid_coord'"),
        ({}, 170, lambda grid: grid * 0, "voxel"),
        ({"enc_depths": (1, 1)}, 1, None, "'enc_depths'"),
        ({"dec_num_head": (1, 1, 1)}, 1, None, "'dec_num_head'"),
        ({"order": ("z", "peano")}, 1, None, "'order'"),
        ({"order": ()}, 1, None, "'order'"),
        ({"stride": (2, 3)}, 1, None, "'stride'"),
        ({"enc_num_head": (3, 2, 4)}, 1, None, "heads"),
        ({"enable_rpe": True}, 1, None, "'enable_flash'"),
    ],
)
def test_what_is_refused(config, count, change, named):
    points = cloud((count,))
    if change is not None:
        points = replace(points, grid_coord=change(points.grid_coord))
    with pytest.raises(ValueError, match=named):
        PointTransformerV3(**{**TINY, **config})(points)
