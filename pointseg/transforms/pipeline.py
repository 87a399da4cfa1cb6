"""Pipelines of transforms for training and validation.

Source: the published configurations of DITR (Knaebel 2025, arXiv:2503.18944).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pointseg.scene import Scene
from pointseg.transforms.augmentation import Augmentation
from pointseg.transforms.colour import AutoContrast, ColorJitter, ColorShift
from pointseg.transforms.geometric import (
    CenterShift,
    ClampToBox,
    ElasticDistortion,
    RandomFlip,
    RandomJitter,
    RandomRotate,
    RandomScale,
)
from pointseg.transforms.select import DropOutside, GridSample, RandomDrop, SphereCrop


class Transform(Protocol):
    """Makes a scene from a scene; all it draws comes from ``rng``."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene made from ``scene``, which stays as it is."""
        ...


@dataclass(frozen=True)
class Compose:
    """Transforms one after the other."""

    steps: tuple[Transform, ...]
    """The transforms in the order in which they are applied."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene after all transforms."""
        for step in self.steps:
            scene = step(scene, rng)
        return scene


def indoor(
    augmentation: Augmentation,
    *,
    voxel_m: float,
    max_points: int | None,
    has_color: bool,
    sphere_fraction: float = 1.0,
) -> tuple[Transform, ...]:
    """The training pipeline of rooms: centre, augment, sample voxels, crop.

    Args:
        augmentation: probabilities and ranges.
        voxel_m: edge of a voxel, metres.
        max_points: of a sphere crop; None: no crop.
        has_color: whether colours are augmented; scenes must then have them.
        sphere_fraction: share of the voxels that another sphere crop before that one keeps.
    """
    a = augmentation
    color: tuple[Transform, ...] = ()
    if has_color:
        color = (
            AutoContrast(probability=a.contrast_probability),
            ColorShift(ratio=a.color_shift, probability=a.color_shift_probability),
            ColorJitter(std=a.color_jitter, probability=a.color_jitter_probability),
        )
    return (
        CenterShift(),
        RandomDrop(fraction=a.drop_fraction, probability=a.drop_probability),
        RandomRotate(axis="z", degrees=a.rotate_z_deg, probability=a.rotate_z_probability),
        RandomRotate(axis="x", degrees=a.rotate_xy_deg, probability=a.rotate_xy_probability),
        RandomRotate(axis="y", degrees=a.rotate_xy_deg, probability=a.rotate_xy_probability),
        RandomScale(low=a.scale_low, high=a.scale_high),
        RandomFlip(probability=a.flip_probability),
        RandomJitter(std_m=a.jitter_m, clip_m=a.jitter_clip_m),
        ElasticDistortion(fields=a.elastic, probability=a.elastic_probability),
        *color,
        GridSample(voxel_m=voxel_m),
        SphereCrop(fraction=sphere_fraction),
        SphereCrop(max_points=max_points),
        CenterShift(floor=False),
    )


def outdoor(
    augmentation: Augmentation,
    *,
    voxel_m: float,
    max_points: int | None = None,
    clip_box_m: tuple[float, ...] | None = None,
    drop_outside: bool = False,
) -> tuple[Transform, ...]:
    """The training pipeline of LiDAR scans; coordinates stay relative to the sensor.

    Args:
        augmentation: probabilities and ranges of rotation about z, scale, flips and jitter.
        voxel_m: edge of a voxel, metres.
        max_points: of a sphere crop; None: no crop.
        clip_box_m: x, y, z minima, then maxima; None: no box.
        drop_outside: points outside the box are left out instead of moved onto it.
    """
    a = augmentation
    return (
        RandomRotate(axis="z", degrees=a.rotate_z_deg, probability=a.rotate_z_probability),
        *_box(clip_box_m, drop_outside),
        RandomScale(low=a.scale_low, high=a.scale_high),
        RandomFlip(probability=a.flip_probability),
        RandomJitter(std_m=a.jitter_m, clip_m=a.jitter_clip_m),
        GridSample(voxel_m=voxel_m),
        SphereCrop(max_points=max_points),
    )


def evaluation(
    *,
    voxel_m: float,
    center: bool,
    clip_box_m: tuple[float, ...] | None = None,
    drop_outside: bool = False,
) -> tuple[Transform, ...]:
    """The validation pipeline: one random point per voxel, no augmentation.

    Args:
        voxel_m: edge of a voxel, metres.
        center: whether rooms are centred, as :func:`indoor` does.
        clip_box_m: x, y, z minima, then maxima; None: no box.
        drop_outside: points outside the box are left out instead of moved onto it.
    """
    before: tuple[Transform, ...] = (CenterShift(),) if center else ()
    after: tuple[Transform, ...] = (CenterShift(floor=False),) if center else ()
    return (*before, *_box(clip_box_m, drop_outside), GridSample(voxel_m=voxel_m), *after)


def _box(box_m: tuple[float, ...] | None, drop_outside: bool) -> tuple[Transform, ...]:
    if box_m is None:
        return ()
    return (DropOutside(box_m=box_m) if drop_outside else ClampToBox(box_m=box_m),)
