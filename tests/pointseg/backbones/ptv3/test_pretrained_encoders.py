"""Sonata, Utonia and LitePT: numbers of their released code, and what holds for any weights."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pointseg.backbones import build_backbone
from pointseg.backbones.ptv3.block import DropPath
from pointseg.cloud import Cloud, collate
from pointseg.config.presets import SIZES
from tests.pointseg.backbones.clouds import cloud, permuted

FIXTURES = ["sonata", "sonata_dec", "utonia", "litept", "litept_dec"]


class Fixture:
    """A network of the fixtures, its inputs and what its released code made of them."""

    def __init__(self, shared, name, **overrides):
        folder = shared / "golden" / name
        self.golden = {k: torch.from_numpy(v) for k, v in np.load(folder / "io.npz").items()}
        config = json.loads((folder / "config.json").read_text())["config"] | overrides
        self.network = build_backbone(name.removesuffix("_dec"), **config).eval()
        self.network.load_state_dict(load_file(folder / "weights.safetensors"), strict=True)
        self.names = [name for name, _ in self.network.named_modules()]
        self.encodes = config["enc_mode"]

    def cloud(self, **more):
        inputs = {key: self.golden[key] for key in ("coord", "grid_coord", "feat", "offset")}
        return Cloud(**inputs, **more)

    def compare(self, prefix="", cloud=None):
        """The stages recorded under a prefix."""
        wanted = {
            key.removeprefix(f"{prefix}at:"): value
            for key, value in self.golden.items()
            if key.startswith(f"{prefix}at:")
        }
        assert wanted.keys() <= set(self.names)
        found, handles = {}, []
        for name in wanted:
            handles.append(
                self.network.get_submodule(name).register_forward_hook(
                    lambda _, __, out, name=name: found.setdefault(name, out)
                )
            )
        with torch.no_grad():
            features = self.network(self.cloud() if cloud is None else cloud)
        for handle in handles:
            handle.remove()
        for name, value in wanted.items():
            rows = self.golden[f"{prefix}rows"] if name == "embedding" and prefix else slice(None)
            torch.testing.assert_close(found[name][rows], value, rtol=0, atol=1e-4, msg=name)
        last = features.levels[-1] if self.encodes else features
        if f"{prefix}out" in self.golden:
            rows = self.golden["shuffled:out_rows"] if prefix else slice(None)
            torch.testing.assert_close(
                last.feat[rows], self.golden[f"{prefix}out"], rtol=0, atol=1e-4
            )
        return features


@pytest.mark.parametrize("name", FIXTURES)
def test_as_the_released_code_at_every_stage(shared, name):
    fixture = Fixture(shared, name)
    golden, network = fixture.golden, fixture.network
    features = fixture.compare()
    voxels, cells = network.resolutions(fixture.cloud())
    for s, (here, level) in enumerate(zip(voxels, features.levels, strict=True)):
        torch.testing.assert_close(level.coord, golden[f"stage{s}:coord"], rtol=0, atol=1e-5)
        assert torch.equal(level.grid_coord, golden[f"stage{s}:grid_coord"].long())
        assert torch.equal(level.offset, golden[f"stage{s}:offset"])
        if s:
            assert torch.equal(cells[s - 1].index, golden[f"stage{s}:pooling_inverse"].long())
            assert torch.equal(features.levels[s - 1].parent, cells[s - 1].index)
        assert (f"stage{s}:serialized_code" in golden) == bool(len(here.codes))
        if len(here.codes):
            assert torch.equal(here.codes, golden[f"stage{s}:serialized_code"])
            assert here.depth == golden[f"stage{s}:serialized_depth"]
    network.curves = golden["shuffled:orders"].tolist()
    fixture.compare("shuffled:")


@pytest.mark.parametrize("name", ["sonata", "sonata_dec", "utonia"])
def test_without_flash_as_the_released_code(shared, name):
    Fixture(shared, name, enable_flash=False).compare("noflash:")


@pytest.mark.parametrize("name", ["sonata", "utonia"])
def test_masked_and_walked_to_the_points_as_the_released_code(shared, name):
    fixture = Fixture(shared, name)
    golden = fixture.golden
    fixture.compare("masked:", fixture.cloud(mask=golden["mask"]))
    for steps in (2, 4):
        fixture.network.upcast = steps
        with torch.no_grad():
            feat = fixture.network(fixture.cloud()).feat[golden["upcast:rows"]]
        torch.testing.assert_close(feat, golden[f"upcast:{steps}"], rtol=0, atol=1e-4)
        built = Fixture(shared, name, upcast=steps).network
        assert built.out_channels == feat.shape[1]


PARAMETERS = [
    ("sonata", "tiny", 4_860_512),
    ("sonata", "small", 38_648_992),
    ("sonata", "base", 108_461_376),
    ("sonata", "large", 207_667_456),
    ("utonia", "base", 137_253_744),
    ("litept", "small", 12_712_932),
    ("litept", "base", 45_112_788),
    ("litept", "large", 85_880_448),
]


def parameters(name, **config):
    with torch.device("meta"):
        network = build_backbone(name, **config)
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(("name", "size", "count"), PARAMETERS)
def test_the_published_sizes(name, size, count):
    token = {} if name == "litept" else {"mask_token": True}
    assert parameters(name, **token, **SIZES[name][size]) == count


def test_other_published_counts():
    assert parameters("litept", in_channels=4) == 12_703_932
    blocks = {"dec_depths": (2, 2, 2, 2), "dec_conv": (1, 1, 1, 0), "dec_attn": (0, 0, 0, 1)}
    assert parameters("litept", **blocks) == 15_988_716
    short = {"enc_depths": (1, 1, 1, 1, 1)}  # the decoder's count and the channels are the same
    decoders = [
        parameters(name, enc_mode=False, **short) - parameters(name, **short)
        for name in ("sonata", "utonia")
    ]
    assert [round(count / 1e6, 1) for count in decoders] == [16.3, 20.5]
    with torch.device("meta"):
        joined = [
            build_backbone(name, upcast=steps, **(SIZES[name][size] | short)).out_channels
            for name, size in [("sonata", "base"), ("sonata", "large"), ("utonia", "base")]
            for steps in (4, 2)
        ]
    assert joined == [1232, 1088, 1728, 1536, 1386, 1224]


TINY = dict(
    in_channels=6,
    stride=(2, 2),
    enc_depths=(1, 1, 2),
    enc_channels=(12, 12, 24),
    enc_num_head=(2, 2, 4),
    enc_patch_size=(16, 16, 16),
    dec_depths=(2, 1),
    dec_channels=(24, 12),
    dec_num_head=(4, 2),
    dec_patch_size=(16, 16),
    enc_mode=False,
)
MIXED = dict(
    **TINY,
    enc_conv=(True, False, True),
    enc_attn=(False, True, True),
    enc_rope_freq=(100.0, 50.0, 100.0),
    dec_conv=(True, False),
    dec_attn=(False, True),
    dec_rope_freq=(100.0, 100.0),
)
CONFIGS = {"sonata": TINY, "utonia": TINY, "litept": MIXED}
NAMES = pytest.mark.parametrize("name", CONFIGS)


def tiny(name, seed=0, **config):
    torch.manual_seed(seed)
    return build_backbone(name, **(CONFIGS[name] | config)).eval()


def drops(network):
    """Drop paths of the blocks of each stage of the decoder, and of all of the encoder."""
    found = [
        [m.probability for m in stage.modules() if isinstance(m, DropPath)]
        for stage in (network.enc, *network.dec.values())
    ]
    return [[round(value, 6) for value in stage] for stage in found]


@NAMES
def test_the_order_of_points_does_not_matter(name):
    points, network = cloud((90, 40)), tiny(name)
    generator = torch.Generator().manual_seed(1)
    rows = torch.cat(
        [torch.randperm(90, generator=generator), 90 + torch.randperm(40, generator=generator)]
    )
    with torch.no_grad():
        wanted = network(points).feat[rows]
        torch.testing.assert_close(network(permuted(points, rows)).feat, wanted, rtol=0, atol=1e-5)


@NAMES
def test_clouds_of_a_batch_do_not_see_each_other(name):
    points, network = cloud((60,)), tiny(name)
    with torch.no_grad():  # the depth of the curves is that of the largest cloud
        alone = network(collate([points, cloud((7,), seed=9)])).feat[:60]
        together = network(collate([points, cloud((200, 7), seed=5)])).feat[:60]
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_positions_count_by_their_differences():
    points, network = cloud(), tiny("utonia")
    with torch.no_grad():
        feat = network(points).feat
        moved = network(replace(points, coord=points.coord + 2)).feat
        scaled = network(replace(points, coord=points.coord * 20)).feat
        none = tiny("utonia", rope_base=None)
        sonata = tiny("sonata")
        for other in (none, sonata):
            other.load_state_dict(
                {k: v for k, v in network.state_dict().items() if "inv_freq" not in k}
            )
        assert torch.equal(none(points).feat, sonata(points).feat)
    torch.testing.assert_close(moved, feat, rtol=0, atol=1e-4)
    assert not torch.allclose(scaled, feat, atol=1e-2)
    encoder = tiny("utonia", dec_rope_enable=False)
    kept = {key.split(".")[0] for key in encoder.state_dict() if "inv_freq" in key}
    assert kept == {"enc"}


@NAMES
def test_curves_are_shuffled_in_training_alone(name):
    points, network = cloud(), tiny(name)
    assert torch.equal(network(points).feat, network(points).feat)
    stages = 2 if name == "litept" else 3  # one of LitePT's follows no curve
    assert network.curve_sequences() == [[0, 1, 2, 3]] * stages
    network.train()
    torch.manual_seed(0)
    drawn = network.curve_sequences()
    torch.manual_seed(0)
    assert drawn == [torch.randperm(4).tolist() for _ in range(stages)]
    network.curves = [[3, 2, 1, 0]]
    with pytest.raises(ValueError, match="'curves'"):
        network(points)


@NAMES
@pytest.mark.parametrize(
    "config",
    [
        {},
        {"pre_norm": False, "qkv_bias": False, "qk_scale": 0.2},
        {"attn_drop": 0.2, "proj_drop": 0.2, "drop_path": 0.4, "mlp_ratio": 1.5},
        {"enc_mode": True, "upcast": 1, "stride": (3, 2)},
        {"image_channels": 3},
    ],
)
def test_every_parameter_learns(name, config):
    network, points = tiny(name, **config).train(), cloud((90, 40))
    images = (torch.randn(130, 3),) if "image_channels" in config else ()
    network(points, *images).feat.square().sum().backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not [n for n in without if not n.endswith(("bias", "cpe.0.bias"))], without


def test_without_decoder_the_stages_are_walked_to_the_points():
    points = cloud()
    for steps, channels in ((0, 24), (1, 36), (2, 48), (None, 48)):
        network = tiny("sonata", enc_mode=True, upcast=steps)
        features = network(points)
        assert features.feat.shape == (len(points), channels) == (len(points), network.out_channels)
        fine, middle, coarse = (level.feat for level in features.levels)
        to_middle, to_coarse = (level.parent for level in features.levels[:2])
        parts = [fine, middle[to_middle], coarse[to_coarse][to_middle]]
        joined = parts if steps is None else parts[2 - steps :]
        assert torch.equal(features.feat, torch.cat(joined, 1))
        assert network.level_channels == (12, 12, 24)


def test_by_hand_where_the_decoder_reads_the_sum():
    network = tiny("sonata", dec_depths=(0, 1))
    with torch.no_grad():
        finest, middle = network(cloud()).levels[:2]
        up = network.dec["dec0"].up
        voxels, cells = network.resolutions(cloud())
        feats = network._encode(cloud(), voxels, cells)
        wanted = up.proj_skip(feats[0]) + up.proj(middle.feat)[cells[0].index]
    torch.testing.assert_close(finest.feat, wanted)  # a stage without blocks is that sum


def test_drop_paths_rise_and_fall_within_a_stage_of_the_decoder():
    network = tiny("sonata", drop_path=0.3)
    assert drops(network) == [[0, 0.1, 0.2, 0.3], [0.3], [0.15, 0]]
    # LitePT counts all blocks, also those without attention, which drop nothing
    assert drops(tiny("litept", drop_path=0.3)) == [[0.1, 0.2, 0.3], [0.3], []]


def test_masked_points_are_not_read():
    network = tiny("sonata", mask_token=True)
    with torch.no_grad():
        network.embedding.mask_token.normal_()
        points = cloud()
        mask = torch.arange(len(points)) % 3 == 0
        masked = replace(points, mask=mask)
        other = replace(masked, feat=points.feat + mask[:, None])
        assert torch.equal(network(masked).feat, network(other).feat)
        assert not torch.equal(network(masked).feat, network(points).feat)
    for name, config in [("sonata", {}), ("litept", {})]:
        with pytest.raises(ValueError, match="'mask'"):
            tiny(name, **config)(masked)


def test_a_frozen_encoder_takes_no_gradients():
    network = tiny("utonia", freeze_encoder=True)
    moving = {n.split(".")[0] for n, p in network.named_parameters() if p.requires_grad}
    assert moving == {"dec"}


@NAMES
def test_autocast(name):
    points, network = cloud(), tiny(name)
    with torch.no_grad():
        wanted = network(points).feat
        with torch.autocast("cpu", torch.bfloat16):
            out = network(points).feat
    assert (out - wanted).abs().mean() < 0.1 * wanted.abs().mean()


@NAMES
@pytest.mark.parametrize("counts", [(1,), (1, 1), (2, 0, 30)])
def test_tiny_clouds(name, counts):
    features = tiny(name).train()(cloud(counts))
    assert features.feat.isfinite().all()
    assert features.levels[-1].offset.shape == (len(counts),)
    features.feat.sum().backward()


@pytest.mark.parametrize(
    ("name", "config", "named"),
    [
        ("sonata", {"enable_rpe": True}, "'enable_rpe'"),
        ("sonata", {"upcast_softmax": True}, "'enable_flash'"),
        ("sonata", {"dec_patch_size": (8, 16)}, "'dec_patch_size'.*8 and 16 in stage 0"),
        ("sonata", {"upcast": 1}, "'upcast'"),
        ("sonata", {"enc_mode": True, "upcast": 3}, "'upcast'"),
        ("sonata", {"enc_mode": True, "image_channels": 3}, "'image_channels'"),
        ("sonata", {"enc_depths": (1, 1)}, "'enc_depths'"),
        ("sonata", {"dec_channels": (24,)}, "'dec_channels'"),
        ("sonata", {"order": ("z", "peano")}, "'order'"),
        ("sonata", {"stride": (2, 0)}, "'stride'"),
        ("sonata", {"rope_base": 10}, "'rope_base'"),
        ("utonia", {"enc_num_head": (2, 2, 5)}, "heads"),
        ("utonia", {"enc_num_head": (4, 2, 4)}, "multiple of 6, got 3"),
        ("utonia", {"pdnorm": 1}, "'pdnorm'"),
        ("litept", {"enable_flash": False}, "'enable_flash'"),
        ("litept", {"layer_scale": 1.0}, "'layer_scale'"),
        ("litept", {"dec_attn": (True, True)}, "'dec_attn'.*stage 0"),
        ("litept", {"enc_conv": (True, True)}, "'enc_conv'"),
        ("litept", {"dec_patch_size": (16, 8)}, "'dec_patch_size'.*stage 1"),
    ],
)
def test_what_is_refused(name, config, named):
    with pytest.raises(ValueError, match=named):
        tiny(name, **config)


def test_larger_windows_of_the_decoder_change_nothing():
    points, network = cloud((150, 40)), tiny("sonata")
    larger = tiny("sonata", dec_patch_size=(64, 64))
    with torch.no_grad():
        assert torch.equal(larger(points).feat, network(points).feat)
    tiny("litept", dec_patch_size=(8, 16))  # no attention there: no windows
