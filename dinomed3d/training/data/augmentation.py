"""How far patches are rotated, and whether in 3D or in plane: decided by the voxels' spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

from dinomed3d.runtime.errors import UserError

TILT = math.pi / 6
"""Largest rotation about each axis, radians: what nnU-Net allows cubic patches."""
SHRINKAGE = (0.85, 1.25)
"""Scaling for which nnU-Net enlarges the region that it loads for a patch."""


SHALLOWEST = 4
"""Slices of a 3D patch that nnU-Net's augmentation needs: its blur reads three beyond each and mirrors them."""


class SpatialAugmentation(NamedTuple):
    """What nnU-Net's loaders and transforms need to know, in the order in which it asks."""

    rotation: tuple[float, float]
    """Range of the rotation about each axis, radians."""
    in_plane: bool
    """Whether slices are rotated and scaled within their planes alone, all of a patch alike."""
    region: tuple[int, ...]
    """Voxels that are loaded for a patch, so that its corners are there once it is rotated."""
    mirrored: tuple[int, ...]
    """Axes along which patches are mirrored."""


def check_depth(patch_size: Sequence[int], halo: int) -> None:
    """Refuse patches on which nnU-Net's augmentation fails now and then, which ends its worker processes.

    Args:
        patch_size: (D, H, W), or (H, W), which is always fine; voxels.
        halo: slices that are loaded beyond each end.

    Raises:
        UserError: too few slices.
    """
    if len(patch_size) == 3 and patch_size[0] + 2 * halo < SHALLOWEST:
        raise UserError(
            f"DinoMed3DTrainer: patches must have at least {SHALLOWEST} slices with their neighbours, for nnU-Net's "
            f"augmentation, got {patch_size[0]} and {halo} at each end (plan: 'patch_size' {list(patch_size)}); train "
            "the configuration 2d, or with an encoder that reads neighbours (DINOMED3D_SLICES at least 3)"
        )


def is_anisotropic(spacing: Sequence[float]) -> bool:
    """Whether slices are further apart than nnU-Net's threshold times the longer side of a pixel.

    Args:
        spacing: (D, H, W), mm.
    """
    return bool(spacing[0] / max(spacing[1:]) > ANISO_THRESHOLD)


def spatial_augmentation(
    patch_size: Sequence[int], spacing: Sequence[float], *, in_plane: bool | None = None
) -> SpatialAugmentation:
    """The augmentation of 3D patches.

    nnU-Net takes a patch that is three times wider than deep for one of anisotropic data, and turns its
    slices by up to half a turn. Patches of whole slices are flat on isotropic data, too, and the encoder
    was pretrained on upright images: here the spacing decides, and rotations are always those of cubes.

    Args:
        patch_size: (D, H, W), voxels.
        spacing: of the same axes, mm.
        in_plane: whether to rotate in plane alone; None to decide by the spacing.
    """
    in_plane = is_anisotropic(spacing) if in_plane is None else in_plane
    rotation = (-TILT, TILT)
    depth, *sides = get_patch_size(patch_size, rotation, rotation, rotation, SHRINKAGE).tolist()
    region = (patch_size[0] if in_plane else depth, *sides)
    return SpatialAugmentation(rotation, in_plane, region, mirrored=(0, 1, 2))
