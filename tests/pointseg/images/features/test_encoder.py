"""The frozen image encoder of clouds: what is said where its weights cannot be had."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dinomed3d.lifting import WeightsError
from dinomed3d.lifting.dino import OPEN_ENCODER, hub_repository, patch_of
from dinomed3d.lifting.missing_weights import POINTS, VOLUMES, where_to_get_weights
from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.start.pretrained import read_pretrained_encoder
from pointseg.config.presets import images_for
from pointseg.images.config import whole_patches
from pointseg.images.features.encoder import blocks_of, open_encoder
from pointseg.models.image_encoder import open_image_features
from tests.pointseg.images.posed import ENCODER, TINY


def test_where_the_hub_gives_nothing_the_encoder_without_a_licence_is_named(no_hub):
    with pytest.raises(UserError, match=f"--encoder {ENCODER}.*hub") as caught:
        open_encoder(ENCODER, "hub")
    assert f"--weights hub --encoder {OPEN_ENCODER}" in str(caught.value)
    with pytest.raises(UserError, match="--encoder vit_base_patch14_dinov2.*hub") as caught:
        open_encoder("vit_base_patch14_dinov2", "hub")
    assert OPEN_ENCODER not in str(caught.value)


def test_volumes_and_points_give_the_same_advice():
    """In their own settings, from one place."""
    for encoder in (ENCODER, OPEN_ENCODER):
        of_points = where_to_get_weights(encoder, POINTS)
        of_volumes = where_to_get_weights(encoder, VOLUMES)
        assert hub_repository(encoder) in of_points
        turned = of_points.replace("--weights ", "DINOMED3D_WEIGHTS=").replace(
            " --encoder ", " and DINOMED3D_ENCODER="
        )
        assert turned.replace(POINTS.again, VOLUMES.again) == of_volumes
    assert POINTS.without_licence == f"--weights hub --encoder {OPEN_ENCODER}"
    with pytest.raises(UserError) as of_run:
        open_image_features(images_for("scannet", ENCODER), weights=None, cache=None)
    assert where_to_get_weights(ENCODER, POINTS) in str(of_run.value)
    with pytest.raises(WeightsError) as of_training:
        read_pretrained_encoder(NetworkSpec(encoder=ENCODER), "/nowhere/weights.pth")
    assert "no such file" in str(of_training.value)


def test_where_the_hub_gives_nothing_both_sides_say_the_same(no_hub):
    with pytest.raises(UserError) as of_points:
        open_encoder(ENCODER, "hub")
    with pytest.raises(WeightsError) as of_volumes:
        read_pretrained_encoder(NetworkSpec(encoder=ENCODER), "hub")
    assert where_to_get_weights(ENCODER, POINTS) in str(of_points.value)
    assert where_to_get_weights(ENCODER, VOLUMES) in str(of_volumes.value)


def test_without_weights_the_error_names_those_that_need_no_licence():
    with pytest.raises(UserError, match="--weights") as caught:
        open_image_features(images_for("scannet", ENCODER), weights=None, cache=None)
    assert f"--weights hub --encoder {OPEN_ENCODER}" in str(caught.value)
    with pytest.raises(UserError, match="--weights") as caught:
        open_image_features(images_for("scannet", OPEN_ENCODER), weights=None, cache=None)
    assert "licence" not in str(caught.value)


@pytest.mark.parametrize(
    ("size", "patch", "near"),
    [
        ((480, 640), 14, (476, 644)),
        ((420, 560), 14, (420, 560)),
        ((420, 560), 16, (416, 560)),
        ((24, 7), 16, (32, 16)),  # halfway: up; never none
        ((4000, 6000), 14, (4004, 6006)),
        ((8, 9), 8, (8, 8)),
    ],
)
def test_whole_patches_nearest_to_a_size(size, patch, near):
    assert whole_patches(size, patch) == near


@pytest.mark.parametrize("name", ["scannet", "s3dis", "nuscenes", "semantickitti", "folder"])
@pytest.mark.parametrize("encoder", ["vit_small_patch14_dinov2", "vit_base_patch16_dinov3"])
def test_usual_sizes_are_whole_patches(name, encoder):
    images = images_for(name, encoder)
    assert not any(side % patch_of(encoder) for side in images.size)


@pytest.mark.parametrize(
    ("taps", "blocks"),
    [((-1,), (11,)), ((-4, -3, -2, -1), (8, 9, 10, 11)), ((2, 5, -1), (2, 5, 11)), ((0,), (0,))],
)
def test_blocks_are_counted_from_either_end(taps, blocks):
    assert blocks_of(taps, 12, ENCODER) == blocks


@pytest.mark.parametrize("taps", [(12,), (-13,), (-1, -2), (11, -1), ()])
def test_blocks_that_are_not_there_or_not_in_order_are_refused(taps):
    with pytest.raises(UserError, match="images.taps"):
        blocks_of(taps, 12, ENCODER)


@pytest.mark.parametrize("wrong", [{"taps": ()}, {"taps": (1, 1)}, {"tile": 0}])
def test_settings_that_are_refused(wrong):
    with pytest.raises(UserError, match=f"'{next(iter(wrong))}'"):
        replace(images_for("scannet", ENCODER), **wrong)


def test_sizes_that_cut_patches_are_refused():
    images = replace(
        images_for("scannet", OPEN_ENCODER), size=(480, 640), encoder_config=TINY | {"img_size": 28}
    )
    with pytest.raises(UserError, match=r"images.size=\[476,644\]"):
        open_image_features(images, weights="none", cache=None)
    whole = replace(images, size=(476, 644))
    assert open_image_features(whole, weights="none", cache=None).config.stride == 14
