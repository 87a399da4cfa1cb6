"""The frozen image encoder of clouds: what is said where its weights cannot be had."""

from __future__ import annotations

import huggingface_hub
import pytest

from dinomed3d.lifting.dino import OPEN_ENCODER
from dinomed3d.runtime.errors import UserError
from pointseg.config.presets import images_for
from pointseg.images.features.encoder import open_encoder
from pointseg.training.image_encoder import open_image_features
from tests.pointseg.images.posed import ENCODER


@pytest.fixture
def gated(monkeypatch):
    def fail(*_, **__):
        raise OSError("401")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)


def test_where_the_hub_gives_nothing_the_encoder_without_a_licence_is_named(gated):
    with pytest.raises(UserError, match=f"--encoder {ENCODER}.*hub") as caught:
        open_encoder(ENCODER, "hub")
    assert f"--weights hub --encoder {OPEN_ENCODER}" in str(caught.value)
    with pytest.raises(UserError, match="--encoder vit_base_patch14_dinov2.*hub") as caught:
        open_encoder("vit_base_patch14_dinov2", "hub")
    assert OPEN_ENCODER not in str(caught.value)


def test_who_names_no_weights_is_told_which_need_no_licence():
    with pytest.raises(UserError, match="--weights") as caught:
        open_image_features(images_for("scannet", ENCODER), weights=None, cache=None)
    assert f"--weights hub --encoder {OPEN_ENCODER}" in str(caught.value)
    with pytest.raises(UserError, match="--weights") as caught:
        open_image_features(images_for("scannet", OPEN_ENCODER), weights=None, cache=None)
    assert "licence" not in str(caught.value)
