"""Rotations, 2D or 3D augmentation, and the region that is loaded for them."""

from __future__ import annotations

import math

import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.data.augmentation import check_depth, spatial_augmentation
from dinomed3d.training.trainer import DinoMed3DTrainer
from tests.dinomed3d.training.conftest import dataset_json, plans
from tests.dinomed3d.training.trainers import fold_folder

TILT = math.pi / 6


def configured(patch: list[int], spacing: list[float], name: str = "3d_fullres"):
    """What a trainer of these patches tells nnU-Net's loaders, and the trainer."""
    plan = plans()
    plan["configurations"][name] |= {"patch_size": patch, "spacing": spacing}
    t = DinoMed3DTrainer(plan, name, 0, dataset_json(), torch.device("cpu"))
    return t.configure_rotation_dummyDA_mirroring_and_inital_patch_size(), t


@pytest.fixture
def any_spacing(nnunet, monkeypatch):
    """The tiny cases pass for those of a plan with any spacing."""
    monkeypatch.setattr("dinomed3d.training.trainer.check_preprocessed", lambda *_: None)


@pytest.mark.parametrize(("patch", "halo"), [((3, 64, 64), 0), ((1, 64, 64), 1), ((2, 64, 64), 0)])
def test_patches_too_shallow_for_the_blur_are_refused(patch, halo):
    with pytest.raises(UserError, match=f"at least 4 slices .* got {patch[0]} and {halo} at each"):
        check_depth(patch, halo)


@pytest.mark.parametrize(("patch", "halo"), [((4, 64, 64), 0), ((2, 64, 64), 1), ((64, 64), 0)])
def test_other_patches_pass_through_nnunets_transforms(patch, halo):
    check_depth(patch, halo)
    if len(patch) == 3:
        shape = (1, patch[0] + 2 * halo, 12, 12)
        blur = GaussianBlurTransform((0.5, 1.0))
        blur(image=torch.randn(shape), segmentation=torch.zeros(shape, dtype=torch.int16))


def test_a_shallow_patch_is_refused_before_anything_is_written(any_spacing, monkeypatch):
    monkeypatch.setenv("DINOMED3D_COMPONENTS", "detail")
    with pytest.raises(UserError, match="at least 4 slices"):
        configured([3, 20, 16], [5.0, 1.0, 1.0])
    configured([4, 20, 16], [5.0, 1.0, 1.0])


def test_a_finished_fold_may_be_validated_whatever_its_depth(any_spacing, nnunet, monkeypatch):
    monkeypatch.setenv("DINOMED3D_COMPONENTS", "detail")
    final = fold_folder(nnunet) / "checkpoint_final.pth"
    final.parent.mkdir(parents=True)
    final.write_bytes(b"of a training that has ended")
    configured([3, 20, 16], [5.0, 1.0, 1.0])


def test_flat_patches_of_isotropic_data_are_rotated_in_3d_as_cubes_are(any_spacing):
    (rotation, in_plane, region, mirrored), t = configured([27, 172, 140], [1.0, 1.0, 1.0])
    assert rotation == pytest.approx((-TILT, TILT)) and not in_plane
    assert mirrored == t.inference_allowed_mirroring_axes == (0, 1, 2)
    # nnU-Net's rule: the corner at (27, 172, 140) turned about one axis at a time, over 0.85
    assert region[0] == int((27 * math.cos(TILT) + 172 * math.sin(TILT)) / 0.85)
    assert region[1] == int((172 * math.cos(TILT) + 140 * math.sin(TILT)) / 0.85)
    assert region[2] == int(140 / 0.85)


@pytest.mark.parametrize(("distance", "in_plane"), [(3.0, False), (3.1, True)])
def test_data_are_anisotropic_above_three_times_the_coarser_side_of_a_pixel(distance, in_plane):
    found = spatial_augmentation((16, 64, 64), (distance, 0.5, 1.0))
    assert found.in_plane == in_plane
    assert found.rotation == pytest.approx((-TILT, TILT))  # also in plane: never half a turn
    assert (found.region[0] == 16) == in_plane


def test_cubic_patches_of_thick_slices_are_augmented_in_plane(any_spacing):
    (_, in_plane, region, _), _ = configured([20, 20, 20], [5.0, 1.0, 1.0])
    assert in_plane and region[0] == 20 and min(region[1:]) > 20


def test_single_slices_are_turned_as_nnunet_turns_them(nnunet):
    (rotation, in_plane, region, mirrored), _ = configured([64, 64], [1.0, 1.0], "2d")
    assert rotation == pytest.approx((-math.pi, math.pi)) and not in_plane
    assert len(region) == 2 and mirrored == (0, 1)
    (rotation, *_), _ = configured([64, 32], [1.0, 1.0], "2d")
    assert rotation == pytest.approx((-math.pi / 12, math.pi / 12))
