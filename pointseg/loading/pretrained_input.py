"""A cloud as a pretrained 3D encoder reads it: placed, voxel-sampled, scaled."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointseg.cloud import Cloud
from pointseg.config.pretrained_inputs import INPUTS, PretrainedInput
from pointseg.config.recipe import Recipe
from pointseg.geometry.voxels import nearest_to_centre, voxelize
from pointseg.loading.network_input import network_input, placed
from pointseg.scene import Scene


class EncoderInput(NamedTuple):
    """The input of an encoder, and the way back to the cloud that it was made from."""

    cloud: Cloud
    """M points, one per voxel: that nearest to its centre."""
    inverse: NDArray[np.int64]
    """(N,) for each point of the scene the row that represents it: features of all are ``feat[inverse]``."""


def pretrained_input(
    scene: Scene, expected: str | PretrainedInput, *, zeros: tuple[str, ...] = ()
) -> EncoderInput:
    """The input that the weights of a family expect.

    Args:
        scene: N >= 1 points in metres, all finite, with the features that the family reads.
        expected: one of ``INPUTS`` or its name, such as "utonia_indoor"; another scale or voxel size is a
            changed value of it.
        zeros: features that the scene lacks, and that are zeros instead. Concerto, Utonia and Sonata's
            weights of October 2025 were trained for that, Sonata's first ones were not.

    Raises:
        ValueError: no such name; no points; a feature is missing; a grid of too many cells.
    """
    if isinstance(expected, str):
        if expected not in INPUTS:
            raise ValueError(
                f"pretrained_input: 'expected' must be one of {', '.join(INPUTS)}, got {expected!r}"
            )
        expected = INPUTS[expected]
    transform = replace(expected.transform, zeros=zeros)
    recipe = replace(expected, transform=transform).apply(Recipe(dataset="folder"))
    if missing := [name for name in recipe.needs if name not in scene]:
        raise ValueError(
            f"pretrained_input: scene {scene.name} lacks {', '.join(missing)}; 'zeros' may name them"
        )
    scene = placed(scene, recipe)
    voxels = voxelize(scene.coord, recipe.voxel_m)
    index = nearest_to_centre(scene.coord, voxels, recipe.voxel_m)
    return EncoderInput(network_input(scene, index, voxels, recipe), voxels.inverse)
