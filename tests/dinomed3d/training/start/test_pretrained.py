"""Pretrained weights reach the network that is trained, and nothing else than them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from dinomed3d.lifting import WeightsError, build_encoder
from dinomed3d.lifting.dino import OPEN_ENCODER
from dinomed3d.networks import NetworkSpec, build_network
from dinomed3d.networks.embedding import inflate_kernel
from dinomed3d.training.settings.nnunet_plan import plan_spec, write_spec
from dinomed3d.training.settings.recipe import Recipe
from dinomed3d.training.start.network_start import load_start
from dinomed3d.training.start.pretrained import read_pretrained_encoder
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import SETTINGS, plans
from tests.dinomed3d.training.trainers import trainer

ENCODER = "encoder.encoder.vit."
KERNEL = f"{ENCODER}patch_embed.proj.weight"


@pytest.fixture
def pretrained(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    """A file with weights for the tests' tiny encoder, and its tensors by name."""
    torch.manual_seed(11)
    size = json.loads(SETTINGS["ENCODER_OVERRIDES"])
    encoder = build_encoder("vit_small_patch16_dinov3", weights="none", **size)
    state = {name: tensor + 0.5 for name, tensor in encoder.vit.state_dict().items()}
    torch.save(state, tmp_path / "encoder.pth")
    return tmp_path / "encoder.pth", state


def same_encoder(network: torch.nn.Module, pretrained: dict[str, torch.Tensor]) -> dict[str, bool]:
    """Whether each pretrained tensor is in the network; the patch kernel as inflated."""
    found = {
        name.removeprefix(ENCODER).replace(".base.", "."): tensor
        for name, tensor in network.state_dict().items()
        if name.startswith(ENCODER)
    }
    kernel = inflate_kernel(pretrained["patch_embed.proj.weight"], slices=5, modalities=1)
    expected = pretrained | {"patch_embed.proj.weight": kernel}
    assert expected.keys() <= found.keys()
    return {name: torch.equal(found[name], tensor) for name, tensor in expected.items()}


def test_training_starts_from_the_pretrained_encoder(nnunet, monkeypatch, pretrained):
    path, tensors = pretrained
    monkeypatch.setenv("DINOMED3D_WEIGHTS", str(path))
    monkeypatch.setenv("DINOMED3D_SLICES", "5")  # so that the kernel must be inflated
    t = trainer()
    t.initialize()
    assert t.network.state_dict()[KERNEL].shape[1] == 5
    assert all(same_encoder(t.network, tensors).values())


def test_none_leaves_the_encoder_random(nnunet, monkeypatch, pretrained):
    monkeypatch.setenv("DINOMED3D_SLICES", "5")
    t = trainer()
    t.initialize()
    same = same_encoder(t.network, pretrained[1])
    assert not same["patch_embed.proj.weight"] and not same["blocks.0.attn.proj.weight"]


@pytest.mark.parametrize(("names", "own"), [("RGB", True), (("T1", "T2", "FLAIR"), False)])
def test_only_channels_that_are_colours_keep_theirs(pretrained, names, own):
    path, tensors = pretrained
    size = json.loads(SETTINGS["ENCODER_OVERRIDES"])
    spec = NetworkSpec(encoder="vit_small_patch16_dinov3", encoder_overrides=size, slices=1)
    network = build_network(3, 2, **spec.to_arch_kwargs())
    dataset = {"channel_names": {str(number): name for number, name in enumerate(names)}}
    line = load_start(network, None, recipe=Recipe(weights=str(path)), dataset=dataset)
    assert ("channels R, G, B are read as its colours" in line) is own
    assert torch.equal(network.state_dict()[KERNEL], tensors["patch_embed.proj.weight"]) is own


def test_where_the_hub_gives_nothing_the_encoder_without_a_licence_is_named(no_hub):
    with pytest.raises(WeightsError) as caught:
        read_pretrained_encoder(NetworkSpec(), "hub")
    for setting in (
        NetworkSpec().encoder,
        "DINOMED3D_WEIGHTS=hub",
        f"DINOMED3D_ENCODER={OPEN_ENCODER}",
    ):
        assert setting in str(caught.value)
    with pytest.raises(WeightsError) as caught:
        read_pretrained_encoder(NetworkSpec(encoder="vit_base_patch14_dinov2"), "hub")
    assert "DINOMED3D_WEIGHTS" in str(caught.value) and OPEN_ENCODER not in str(caught.value)


@pytest.mark.parametrize(
    ("cls", "training", "warned"),
    [(nnUNetTrainer, True, True), (nnUNetTrainer, False, False), (DinoMed3DTrainer, True, False)],
)
def test_a_trainer_that_loads_no_weights_warns(nnunet, caplog, cls, training, warned):
    """nnUNetv2_train -p DinoMed3DPlans without -tr: the network would learn from a random encoder."""
    plan = plans()
    spec = plan_spec(PlansManager(plan).get_configuration("3d_fullres"))
    tiny = json.loads(SETTINGS["ENCODER_OVERRIDES"])
    write_spec(plan, "3d_fullres", replace(spec, encoder_overrides=tiny))
    manager = PlansManager(plan)
    with torch.device("meta"):
        network = cls.build_network_architecture(
            manager, manager.get_configuration("3d_fullres"), 1, 3, training
        )
    assert network.decoder.deep_supervision is training
    assert ("RANDOM" in caplog.text and "-tr DinoMed3DTrainer" in caplog.text) is warned
