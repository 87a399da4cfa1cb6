"""Targets of patches that were loaded with a halo: neighbouring slices that the embedding alone reads."""

from __future__ import annotations

from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from torch import Tensor


class InnerTarget(SegOnlyTransform):
    """Leaves the halo out of a patch's target, before it is made smaller for deep supervision."""

    def __init__(self, halo: int) -> None:
        """Store the slices at each end, which are those of the image."""
        super().__init__()
        self.halo = halo

    def _apply_to_segmentation(self, segmentation: Tensor, **params: Any) -> Tensor:
        """(R, halo + D + halo, H, W) -> (R, D, H, W)."""
        return segmentation[:, self.halo : segmentation.shape[1] - self.halo]
