"""Targets of patches that were loaded with a halo: neighbouring slices that the embedding alone reads."""

from __future__ import annotations

from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import SegOnlyTransform
from torch import Tensor


class InnerTarget(SegOnlyTransform):
    """Leaves the halo out of a patch's target, at each size of deep supervision."""

    def __init__(self, halo: int) -> None:
        """Store the slices at each end, which are those of the image."""
        super().__init__()
        self.halo = halo

    def _apply_to_segmentation(
        self, segmentation: Tensor | list[Tensor], **params: Any
    ) -> Tensor | list[Tensor]:
        """(R, halo + D + halo, H, W) -> (R, D, H, W)."""
        if isinstance(segmentation, list):
            return [self._inner(target) for target in segmentation]
        return self._inner(segmentation)

    def _inner(self, target: Tensor) -> Tensor:
        return target[:, self.halo : target.shape[1] - self.halo]
