"""What a pretrained 3D encoder expects of its input, beyond voxel size and features."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from pointseg.scene import Scene
from pointseg.transforms.geometric import CenterShift, UnitSphere
from pointseg.transforms.pipeline import Transform

FILLED = ("color", "normal", "strength")
"""Features that can be zeros for all points."""


@dataclass(frozen=True, kw_only=True)
class InputTransform:
    """Placing and scaling of a scene; the default changes nothing.

    All else stays in metres: voxels, augmentation, tiles and their margins. The scale is applied last, to
    sampled points, so that a voxel of ``voxel_m`` is one of ``voxel_m`` times ``scale`` for the network.

    Source: the published inputs of Sonata (Wu 2025, arXiv:2503.16429), Concerto (Zhang 2025,
    arXiv:2510.23607) and Utonia.
    """

    unit_sphere: bool = False
    """Whether each scene is an object that is first moved to the mean of its points and divided by its largest
    radius; lengths in metres are then in radii."""
    center_outdoor: bool = False
    """Whether outdoor scenes are centred in x and y, after sampling; heights stay. Rooms are always centred."""
    scale: float = 1.0
    """Units of the network per metre: its coordinates are metres times this."""
    zeros: tuple[str, ...] = ()
    """Features that are zeros for all points, because the data lacks them: some of color, normal, strength."""

    def __post_init__(self) -> None:
        if not 0 < self.scale < inf:
            raise ValueError(f"InputTransform: 'scale' must be above 0, got {self.scale}")
        if unknown := [name for name in self.zeros if name not in FILLED]:
            raise ValueError(
                f"InputTransform: 'zeros' must be some of {', '.join(FILLED)}, got {', '.join(unknown)}"
            )

    @property
    def before(self) -> tuple[Transform, ...]:
        """What is done with a whole scene, before anything else."""
        return (UnitSphere(),) if self.unit_sphere else ()

    @property
    def after(self) -> tuple[Transform, ...]:
        """What is done with a sample of an outdoor scene, before the network reads it."""
        return (CenterShift(floor=False),) if self.center_outdoor else ()

    def scaled(self, scene: Scene) -> NDArray[np.float32]:
        """(N, 3) coordinates in the network's units."""
        return scene.coord if self.scale == 1 else scene.coord * np.float32(self.scale)
