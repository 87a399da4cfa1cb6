"""What the published 3D encoders expect of their input, by family and kind of scene."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from pointseg.config.recipe import Recipe
from pointseg.transforms import InputTransform

NINE = ("coord", "color", "normal")
"""Features of Sonata, Concerto and Utonia: nine channels, colours in 0 to 1, unit normals."""


@dataclass(frozen=True, kw_only=True)
class PretrainedInput:
    """The input that the weights of a family were trained with, for one kind of scene."""

    features: tuple[str, ...] = NINE
    """Input channels, in this order."""
    voxel_m: float = 0.02
    """Edge of a voxel in metres; the network sees it times ``transform.scale``."""
    scene_type: str = "indoor"
    """indoor: x and y are centred, heights begin at 0; outdoor: the sensor stays at the origin."""
    transform: InputTransform = InputTransform()
    """Placing and scaling."""

    def apply(self, recipe: Recipe) -> Recipe:
        """A recipe that reads its scenes so, colours in 0 to 1."""
        return replace(
            recipe,
            features=self.features,
            color_range="unit",
            voxel_m=self.voxel_m,
            scene_type=self.scene_type,
            input=self.transform,
        )


INPUTS: Mapping[str, PretrainedInput] = MappingProxyType(
    {
        "sonata": PretrainedInput(),
        "concerto_outdoor": PretrainedInput(
            voxel_m=0.05,
            scene_type="outdoor",
            transform=InputTransform(scale=0.2, center_outdoor=True),
        ),
        "utonia_indoor": PretrainedInput(transform=InputTransform(scale=0.5)),
        "utonia_outdoor": PretrainedInput(
            voxel_m=0.05, scene_type="outdoor", transform=InputTransform(scale=0.2)
        ),
        "utonia_object": PretrainedInput(voxel_m=0.01, transform=InputTransform(unit_sphere=True)),
        "litept_indoor": PretrainedInput(features=("color", "normal")),
        "litept_outdoor": PretrainedInput(
            features=("coord", "strength"), voxel_m=0.05, scene_type="outdoor"
        ),
    }
)
"""By family and kind of scene; "sonata" is Concerto's indoor input, too.

Utonia's grid has cells of 0.01 units whatever the scale, so that voxels of 0.02 m go with a scale of 0.5.

Source: the published inputs of Sonata (Wu 2025, arXiv:2503.16429), Concerto, Utonia and LitePT.
"""
