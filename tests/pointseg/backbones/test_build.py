"""Backbones by name."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import pointseg
from dinomed3d.runtime.errors import UserError
from pointseg.backbones import BACKBONES, build_backbone
from pointseg.backbones.minkunet import MinkUNet
from pointseg.backbones.ptv3.point_transformer_v3 import PointTransformerV3
from tests.pointseg.backbones.ptv3.test_point_transformer_v3 import TINY


def test_by_name():
    lists = {key: list(value) for key, value in TINY.items()}
    assert isinstance(build_backbone("ptv3", in_channels=4, **lists), PointTransformerV3)
    small = build_backbone("minkunet", in_channels=4, channels=[8, 8], layers=[1, 1])
    assert isinstance(small, MinkUNet)


@pytest.mark.parametrize("name", BACKBONES)
def test_each_states_its_channels(name):
    with torch.device("meta"):
        more = {"image_channels": 8} if name == "linear" else {}
        backbone = pointseg.build_backbone(name, in_channels=6, **more)
    assert backbone.in_channels == 6
    joined = {"sonata": 5, "utonia": 5}.get(name, 1)  # stages, in encoders without decoder
    assert sum(backbone.level_channels[:joined]) == backbone.out_channels


def test_weights_go_in(tmp_path):
    backbone = build_backbone("ptv3", **TINY)
    torch.save({"state_dict": backbone.state_dict()}, tmp_path / "weights.pth")
    again = build_backbone("ptv3", tmp_path / "weights.pth", **TINY)
    for key, value in backbone.state_dict().items():
        assert torch.equal(again.state_dict()[key], value)


def test_configurations_of_pointcept():
    off = {"cls_mode": False, "enc_mode": False, "pdnorm_bn": False, "pdnorm_ln": False}
    build_backbone("ptv3", pdnorm_conditions=("ScanNet",), pdnorm_affine=True, **off, **TINY)


@pytest.mark.parametrize(
    ("name", "config", "named"),
    [
        ("ptv4", {}, "'name'.*'ptv4'"),
        ("ptv3", {"depth": 3, "width": 4}, "'depth', 'width'"),
        ("ptv3", {"num_classes": 20}, "'num_classes'"),
        ("ptv3", {"enc_mode": True, **TINY}, "'enc_mode'"),
        ("minkunet", {}, "'in_channels'"),
        ("minkunet", {"in_channels": "6"}, "'in_channels'"),
        ("minkunet", {"in_channels": 0}, "'in_channels'"),
        (None, {}, "'name'.*NoneType"),
        ("minkunet", {"in_channels": 3, "enc_mode": False}, "'enc_mode'"),
    ],
)
def test_what_is_refused(name, config, named):
    with pytest.raises(UserError, match=named):
        build_backbone(name, **config)


def test_the_package_loads_nothing_until_asked():
    code = "import sys, pointseg; print(sorted({'torch', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout.strip() == "[]"


def test_names_of_the_package():
    assert pointseg.__all__ == [
        "Cloud",
        "PointSegmenter",
        "Scene",
        "Segmenter",
        "__version__",
        "array_frame",
        "build_backbone",
        "collate",
        "lift_features",
        "load_model",
        "pretrained_input",
    ]
    for name in pointseg.__all__:
        assert getattr(pointseg, name) is not None and name in dir(pointseg)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        pointseg.nothing  # noqa: B018
