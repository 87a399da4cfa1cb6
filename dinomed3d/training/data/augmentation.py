"""How far patches are rotated, and whether in 3D or in plane: decided by the voxels' spacing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from nnunetv2.configuration import ANISO_THRESHOLD
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size

TILT = math.pi / 6
"""Largest rotation about each axis, radians: what nnU-Net allows cubic patches."""
SHRINKAGE = (0.85, 1.25)
"""Scaling for which nnU-Net enlarges the region that it loads for a patch."""


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
