"""Which forward passes predict a scene: test-time augmentations and fragments, or a single pass."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import InferenceConfig
from pointseg.transforms import TTA_SETS, TTAVariant

MAX_FRAGMENTS = 100
"""Fragments of one augmentation; only clouds with very many points in one voxel have more."""


@dataclass(frozen=True, kw_only=True)
class InferenceProtocol:
    """The forward passes of a scene.

    Source: the test protocol of PTv3 and DITR. Each augmented cloud is split into fragments with one point of
    every voxel, so that every point is predicted; class probabilities are summed over all passes.
    """

    config: InferenceConfig
    """Augmentations, tile size and margin."""
    single_pass: bool = False
    """Predict only the point nearest to the centre of each voxel, without augmentation; the other points of
    the voxel get its class."""
    max_fragments: int = MAX_FRAGMENTS
    """Fragments per augmentation; points in none of them get the scores of a point of their voxel."""

    def __post_init__(self) -> None:
        if self.max_fragments < 1:
            raise UserError(
                f"InferenceProtocol: 'max_fragments' must be >= 1, got {self.max_fragments}"
            )

    @property
    def augmentations(self) -> tuple[TTAVariant, ...]:
        """The variants of the scene whose scores are summed."""
        return TTA_SETS["single" if self.single_pass else self.config.tta]

    def as_dict(self) -> dict[str, Any]:
        """Everything that decides a prediction, for reports."""
        return {
            "single_pass": self.single_pass,
            "prevoxel_m": None if self.single_pass else self.config.prevoxel_m,
            "tta": [asdict(augmentation) for augmentation in self.augmentations],
            "max_fragments": 1 if self.single_pass else self.max_fragments,
            "max_points": self.config.max_points,
            "margin_m": self.config.margin_m,
        }
