"""Statistics of a configuration's training images, as sizing needs them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dinomed3d.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class DatasetStats:
    """Statistics of a configuration's training images after resampling and transposing."""

    spacing: tuple[float, ...]
    """(D, H, W) or (H, W) target spacing, mm."""
    shape: tuple[int, ...]
    """Median shape of the same axes, voxels."""
    channels: int
    """Channels of the network's input, including the previous configuration's segmentation (cascade)."""
    classes: int
    """Channels of the logits: labels with background, or regions."""
    cascade_channels: int = 0
    """How many of these channels are the previous configuration's segmentation (cascade)."""

    def __post_init__(self) -> None:
        """Refuse statistics that no plan can be made for."""
        if any(not 0 < s < math.inf for s in self.spacing):
            raise UserError(
                f"planner: spacing must be positive in each axis, got {list(self.spacing)} mm; correct the headers of "
                "the images and extract the fingerprint again (nnUNetv2_extract_fingerprint), or give "
                "-overwrite_target_spacing"
            )
        if any(side < 1 for side in self.shape) or len(self.shape) != len(self.spacing):
            raise UserError(
                f"planner: the median shape must have a positive side per axis of the spacing, got {list(self.shape)} "
                "voxels; extract the fingerprint again (nnUNetv2_extract_fingerprint)"
            )
        if self.classes < 1 or self.channels - self.cascade_channels < 1:
            raise UserError(
                f"planner: there must be an image channel and a label to learn, got {self.channels} channels and "
                f"{self.classes} outputs; check 'channel_names' and 'labels' of dataset.json"
            )
