"""Backbones of the user's own: what they must have, and what they must return."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import nn

from dinomed3d.runtime.errors import UserError
from pointseg import Cloud, Segmenter
from pointseg.backbones import Backbone, Features, build_backbone
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.models.trained_model import load_model
from pointseg.plugins import PluginError
from tests.pointseg.tiny import CLASSES, RECIPE


class Net(Backbone):
    """Fits; what it returns can be spoilt."""

    def __init__(self, in_channels: int, width: int = 5, answer: str = "features") -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.answer = in_channels, width, answer
        self.layer = nn.Linear(in_channels, width)

    def forward(self, cloud: Cloud) -> Features:
        feat = self.layer(cloud.feat)
        if self.answer == "error":
            raise IndexError("of mine")
        kinds = {"tensor": feat, "short": Features(feat[1:], ()), "wide": Features(cloud.feat, ())}
        return kinds.get(self.answer, Features(feat, ()))


class Plain(nn.Module):
    """Not derived from Backbone, but all there."""

    def __init__(self, in_channels: int, **rest: int) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.rest = in_channels, 4, rest

    def forward(self, cloud: Cloud) -> Features:
        return Features(cloud.feat.new_zeros(len(cloud), 4), ())


class NoForward(Backbone):
    pass


class NoChannels(Net):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels)
        del self.out_channels


class OtherChannels(Net):
    def __init__(self, in_channels: int) -> None:
        super().__init__(in_channels + 1)


class Failing(Net):
    def __init__(self, in_channels: int) -> None:
        raise KeyError("of mine")


class TakesNothing(Net):
    def __init__(self) -> None:
        super().__init__(3)


@pytest.fixture(autouse=True)
def module(monkeypatch):
    made = ModuleType("my_nets")
    for kind in (Net, Plain, NoForward, NoChannels, OtherChannels, Failing, TakesNothing):
        setattr(made, kind.__name__, kind)
    made.NoNetwork = type("NoNetwork", (), {})
    monkeypatch.setitem(sys.modules, "my_nets", made)


def cloud() -> Cloud:
    return Cloud(
        coord=torch.zeros(6, 3),
        grid_coord=torch.zeros(6, 3, dtype=torch.int64),
        feat=torch.ones(6, 3),
        offset=torch.tensor([6]),
    )


def test_a_network_of_ones_own_in_a_segmenter():
    model = Segmenter(build_backbone("my_nets:Net", in_channels=3, width=7), 2)
    assert model(cloud()).shape == (6, 2)
    assert set(model.state_dict()) == {
        f"{layer}.{name}" for layer in ("backbone.layer", "seg_head") for name in ("weight", "bias")
    }


def test_a_network_that_is_not_derived_and_takes_any_argument():
    backbone = build_backbone("my_nets:Plain", in_channels=3, depth=2)
    assert backbone.rest == {"depth": 2} and backbone.image_channels is None
    assert Segmenter(backbone, 2)(cloud()).shape == (6, 2)


def test_its_arguments_are_not_taken_for_numbers_of_layers(tmp_path):
    config = {"depth": 4096, "block_size": 256}
    recipe = replace(RECIPE, backbone="my_nets:Plain", backbone_config=config)
    weights = build_segmenter(recipe, 2, None).state_dict()
    save_checkpoint(tmp_path / "m.pt", weights, recipe=recipe, classes=CLASSES)
    model, _ = load_model(tmp_path / "m.pt", "cpu", backbone="my_nets:Plain")
    assert model.backbone.rest == config


@pytest.mark.parametrize(
    ("name", "config", "named"),
    [
        ("NoNetwork", {}, "Module"),
        ("NoForward", {}, "forward"),
        ("NoChannels", {}, "'out_channels'"),
        ("OtherChannels", {}, "'in_channels' must be 3"),
        ("Failing", {}, "KeyError"),
        ("TakesNothing", {}, "'in_channels'"),
        ("Net", {"wide": 3}, "it takes in_channels, width, answer"),
        ("Net", {"image_channels": 8}, "'image_channels'"),
    ],
)
def test_what_does_not_fit_is_named_when_it_is_opened(name, config, named):
    with pytest.raises(UserError) as caught:
        build_backbone(f"my_nets:{name}", in_channels=3, **config)
    assert f"my_nets:{name}" in str(caught.value) and named in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ("tensor", "Tensor"),
        ("short", "(5, 5)"),
        ("wide", "(6, 3)"),
        ("error", "IndexError: of mine"),
    ],
)
def test_what_it_returns_is_checked(answer, named):
    model = Segmenter(build_backbone("my_nets:Net", in_channels=3, answer=answer), 2)
    with pytest.raises(PluginError) as caught:
        model(cloud())
    assert "my_nets:Net: forward(cloud)" in str(caught.value) and named in str(caught.value)
    assert (answer == "error") == isinstance(caught.value.__cause__, IndexError)


@pytest.mark.parametrize(
    "recipe",
    [
        {"backbone": "never_imported:Net", "backbone_config": {}},
        {"backbone": "linear", "backbone_config": {"encoder": "never_imported:Net"}},
        {"backbone": "never_imported:Net; x", "backbone_config": {}},
        {"dataset": "never_imported:Data"},
    ],
)
def test_a_models_file_imports_nothing(tmp_path, monkeypatch, recipe):
    (tmp_path / "never_imported.py").write_text("open('imported', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    weights = build_segmenter(RECIPE, 2).state_dict()
    made = replace(RECIPE, **recipe)
    save_checkpoint(tmp_path / "a.pt", weights, recipe=made, classes=CLASSES)
    if "dataset" in recipe:
        load_model(tmp_path / "a.pt", "cpu")
    for named in () if "dataset" in recipe else (None, "minkunet", "linear"):
        with pytest.raises(UserError, match=r"a\.pt"):
            load_model(tmp_path / "a.pt", "cpu", backbone=named)
    assert not (tmp_path / "imported").exists()
