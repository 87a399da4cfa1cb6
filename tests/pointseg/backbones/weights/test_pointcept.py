"""Published weights: wrappers, prefixes, heads, layouts, and keys that do not fit."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pointseg.backbones.minkunet import MinkUNet
from pointseg.backbones.ptv3.point_transformer_v3 import PointTransformerV3
from pointseg.backbones.weights.named_tensors import BackboneWeightsError
from pointseg.backbones.weights.pointcept import load_backbone, read_state
from tests.pointseg.backbones.clouds import cloud
from tests.pointseg.backbones.ptv3.test_point_transformer_v3 import TINY


def network(seed=0, **config):
    torch.manual_seed(seed)
    return PointTransformerV3(**{**TINY, **config})


def same(one, other):
    return all(torch.equal(one[key], other[key]) for key in one) and one.keys() == other.keys()


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("wrapped", [False, True])
def test_wrappers_and_prefixes(tmp_path, prefix, wrapped):
    source, target = network(0), network(1)
    state = {prefix + key: value for key, value in source.state_dict().items()}
    content = {"state_dict": state, "epoch": 7, "best_metric_value": np.float64(0.77)}
    torch.save(content if wrapped else state, tmp_path / "model_best.pth")
    assert load_backbone(target, tmp_path / "model_best.pth") is None
    assert same(source.state_dict(), target.state_dict())


@pytest.mark.parametrize("name", ["ptv3", "ditr"])
def test_the_fixtures_load(shared, name):
    folder = shared / "golden" / name
    config = json.loads((folder / "config.json").read_text())
    target = PointTransformerV3(**config)
    assert load_backbone(target, folder / "weights.safetensors") is None
    assert same(load_file(folder / "weights.safetensors"), target.state_dict())


def test_the_head_is_handed_back(tmp_path):
    source, target = network(0), network(1)
    head = nn.Linear(12, 20)
    state = {f"module.backbone.{key}": value for key, value in source.state_dict().items()}
    state |= {f"module.seg_head.{key}": value for key, value in head.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "model_best.pth")
    found = load_backbone(target, tmp_path / "model_best.pth")
    assert found is not None and found.bias is not None
    assert torch.equal(found.weight, head.weight) and torch.equal(found.bias, head.bias)
    assert same(source.state_dict(), target.state_dict())


def test_the_head_of_a_sparse_unet(tmp_path):
    small = dict(in_channels=6, channels=(8, 8), layers=(1, 1), base_channels=8)
    source, target = MinkUNet(num_classes=5, **small).eval(), MinkUNet(**small).eval()
    save_file(source.state_dict(), tmp_path / "unet.safetensors")
    head = load_backbone(target, tmp_path / "unet.safetensors")
    assert head is not None and head.weight.shape == (5, 8)
    points = cloud()
    with torch.no_grad():
        scores = nn.functional.linear(target(points).feat, head.weight, head.bias)
        torch.testing.assert_close(scores, source(points).feat)
    # where the network has that head itself, it stays
    again = MinkUNet(num_classes=5, **small)
    assert load_backbone(again, tmp_path / "unet.safetensors") is None
    assert same(source.state_dict(), again.state_dict())


@pytest.mark.parametrize(
    "which", [network, lambda: MinkUNet(in_channels=4, channels=(8, 16), layers=(1, 1))]
)
def test_the_layout_of_spconv_1_is_turned(tmp_path, which):
    source, target = which(), which()
    state = {
        # a kernel of one voxel is an (in, out) matrix in memory in both layouts
        key: value.reshape(1, 1, 1, value.shape[4], value.shape[0])
        if value.dim() == 5 and value.shape[1] == 1
        else value.permute(1, 2, 3, 4, 0).contiguous()
        if value.dim() == 5
        else value
        for key, value in source.state_dict().items()
    }
    save_file(state, tmp_path / "old.safetensors")
    load_backbone(target, tmp_path / "old.safetensors")
    assert same(source.state_dict(), target.state_dict())


def test_layouts_that_cannot_be_recognised(tmp_path):
    class Cube(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 3, 3, 3, 3))

    torch.save(Cube().state_dict(), tmp_path / "cube.pth")
    with pytest.raises(BackboneWeightsError, match=r"cube\.pth.*weight"):
        load_backbone(Cube(), tmp_path / "cube.pth")


def test_mixed_layouts(tmp_path):
    state = dict(network().state_dict())
    key = "enc.enc0.block0.cpe.0.weight"
    state[key] = state[key].permute(1, 2, 3, 4, 0).contiguous()
    torch.save(state, tmp_path / "mixed.pth")
    with pytest.raises(BackboneWeightsError, match=r"mixed\.pth.*cpe"):
        load_backbone(network(), tmp_path / "mixed.pth")


def test_every_key_is_accounted_for(tmp_path):
    target = network(1)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    state = dict(network(0).state_dict())
    del state["embedding.stem.norm.weight"]
    state["dec.dec0.up.proj.0.weight"] = torch.zeros(2, 2)
    for number in range(6):
        state[f"distilled.{number}"] = torch.zeros(1)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(BackboneWeightsError) as caught:
        load_backbone(target, tmp_path / "other.pth")
    message = str(caught.value)
    assert "1 missing: embedding.stem.norm.weight;" in message
    assert "6 unexpected: distilled.0, distilled.1, distilled.2, distilled.3, ...;" in message
    assert "1 of another shape: dec.dec0.up.proj.0.weight is (2, 2), must be (12, 8)" in message
    assert same(before, target.state_dict())


@pytest.mark.parametrize(
    ("given", "wanted", "advice"),
    [
        ({"image_channels": 3}, {}, "build the backbone with 'image_channels'"),
        ({}, {"image_channels": 3}, "build the backbone without 'image_channels'"),
        ({"enable_rpe": True, "enable_flash": False}, {}, "build it with enable_rpe=True"),
    ],
)
def test_what_to_do_about_it(tmp_path, given, wanted, advice):
    torch.save(network(**given).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(BackboneWeightsError, match=advice):
        load_backbone(network(**wanted), tmp_path / "weights.pth")


def test_relative_positions_are_loaded(tmp_path):
    config = {"enable_rpe": True, "enable_flash": False}
    source, target = network(0, **config), network(1, **config)
    # windows of 16: int(64 ** (1 / 3) * 2), which rounding makes 7
    assert source.state_dict()["enc.enc0.block0.attn.rpe.rpe_table"].shape == (3 * 15, 2)
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    load_backbone(target, tmp_path / "weights.pth")
    assert same(source.state_dict(), target.state_dict())


class Malicious:
    def __reduce__(self):
        return print, ("this must not run",)


def test_code_is_not_run(tmp_path, capsys):
    torch.save({"state_dict": {}, "extra": Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(BackboneWeightsError, match=r"bad\.pth: wants to run"):
        read_state(tmp_path / "bad.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([1, 2], "list"),
        ({"epoch": 3}, "'epoch'"),
        ({"a": torch.ones(1), "module.a": torch.ones(1)}, "twice"),
    ],
)
def test_files_that_are_no_checkpoints(tmp_path, content, named):
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(BackboneWeightsError, match=rf"a\.pth.*{named}"):
        read_state(tmp_path / "a.pth")


@pytest.mark.parametrize("name", ["absent.pth", "cut.pth", "cut.safetensors"])
def test_files_that_are_missing_or_cut_off(tmp_path, name):
    torch.save(network().state_dict(), tmp_path / "whole.pth")
    if name != "absent.pth":
        (tmp_path / name).write_bytes((tmp_path / "whole.pth").read_bytes()[:2000])
    with pytest.raises(BackboneWeightsError, match=name):
        read_state(tmp_path / name)


def test_a_head_that_is_none(tmp_path):
    state = dict(network().state_dict())
    state["seg_head.weight"], state["seg_head.bias"] = torch.zeros(4, 12), torch.zeros(5)
    torch.save(state, tmp_path / "weights.pth")
    with pytest.raises(BackboneWeightsError, match=r"weights\.pth.*seg_head"):
        load_backbone(network(), tmp_path / "weights.pth")
