"""What a new run starts from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dinomed3d.runtime.errors import UserError
from pointseg.config.serialization import override
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.models.pretrained import initial_weights
from tests.pointseg.painted import IMAGES
from tests.pointseg.tiny import CLASSES, RECIPE


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    state = build_segmenter(RECIPE, 2).state_dict()
    save_checkpoint(tmp_path / "best.pt", state, recipe=RECIPE, classes=CLASSES)
    return tmp_path / "best.pt", state


def test_the_same_classes_keep_their_head(trained) -> None:
    path, state = trained
    model = build_segmenter(RECIPE, 2)
    assert "the head is taken" in initial_weights(path, CLASSES.names, RECIPE)(model)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("names", [("box", "floor"), ("a", "b", "c")])
def test_other_classes_get_a_new_head(trained, names: tuple[str, ...]) -> None:
    path, state = trained
    model = build_segmenter(RECIPE, len(names))
    head = model.seg_head.weight.clone()
    assert "the head is new" in initial_weights(path, names, RECIPE)(model)
    assert torch.equal(model.seg_head.weight, head)
    found = model.state_dict()
    backbone = [key for key in state if key.startswith("backbone.")]
    assert all(torch.equal(found[key], state[key]) for key in backbone)


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "module.backbone."])
def test_published_backbones(trained, prefix: str, tmp_path: Path) -> None:
    _, state = trained
    own = {k.removeprefix("backbone."): v for k, v in state.items() if k.startswith("backbone.")}
    path = tmp_path / "model_best.pth"
    torch.save({"state_dict": {prefix + key: value for key, value in own.items()}}, path)
    model = build_segmenter(RECIPE, 2)
    assert "the head is new" in initial_weights(path, CLASSES.names, RECIPE)(model)
    assert all(torch.equal(model.backbone.state_dict()[key], value) for key, value in own.items())


def test_another_backbone_is_refused(trained) -> None:
    path, _ = trained
    wider = override(RECIPE, ["backbone_config.base_channels=8"])
    with pytest.raises(UserError, match="its backbone differs"):
        initial_weights(path, CLASSES.names, RECIPE)(build_segmenter(wider, 2))


@pytest.mark.parametrize("change", ['features=["normal"]', "color_range=signed"])
def test_as_many_channels_of_another_meaning_are_refused(trained, change: str) -> None:
    path, _ = trained
    other = override(RECIPE, [change])
    assert other.in_channels == RECIPE.in_channels
    with pytest.raises(UserError, match=rf"best.pt: was trained with {change.split('=')[0]} "):
        initial_weights(path, CLASSES.names, other)(build_segmenter(other, 2))


def test_models_with_and_without_images_are_distinguished(trained, tmp_path: Path) -> None:
    path, _ = trained
    seeing = replace(RECIPE, images=replace(IMAGES, channels=24, stride=16))
    model = build_segmenter(seeing, 2)
    with pytest.raises(UserError, match=r"best.pt: was trained without images; leave out --images"):
        initial_weights(path, CLASSES.names, seeing)(model)
    save_checkpoint(tmp_path / "ditr.pt", model.state_dict(), recipe=seeing, classes=CLASSES)
    with pytest.raises(
        UserError, match=r"was trained with --images; add that \(--encoder vit_small"
    ):
        initial_weights(tmp_path / "ditr.pt", CLASSES.names, RECIPE)(build_segmenter(RECIPE, 2))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--init .*none.pt: there is no such file"):
        initial_weights(tmp_path / "none.pt", CLASSES.names, RECIPE)


def test_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"nothing of ours")
    with pytest.raises(UserError, match="x.pt"):
        initial_weights(tmp_path / "x.pt", CLASSES.names, RECIPE)(build_segmenter(RECIPE, 2))
