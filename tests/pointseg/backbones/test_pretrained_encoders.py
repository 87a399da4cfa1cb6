"""Sonata, Utonia and LitePT: numbers of their released code, and what holds for any weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pointseg.backbones import build_backbone
from pointseg.cloud import Cloud
from pointseg.config.presets import SIZES

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
        assert (f"stage{s}:serialized_code" in golden) == bool(here.codes)
        if here.codes:
            assert torch.equal(torch.stack(here.codes), golden[f"stage{s}:serialized_code"])
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
    decoders = [
        parameters(name, enc_mode=False) - parameters(name) for name in ("sonata", "utonia")
    ]
    assert [round(count / 1e6, 1) for count in decoders] == [16.3, 20.5]
    with torch.device("meta"):
        joined = [
            build_backbone(name, upcast=steps, **SIZES[name][size]).out_channels
            for name, size in [("sonata", "base"), ("sonata", "large"), ("utonia", "base")]
            for steps in (4, 2)
        ]
    assert joined == [1232, 1088, 1728, 1536, 1386, 1224]
