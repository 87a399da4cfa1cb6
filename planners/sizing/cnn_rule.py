"""nnU-Net's rule for patch, batch and CNN, as the search asks it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dinomed3d.networks import CnnSpec


@dataclass(frozen=True, kw_only=True)
class CnnPlan:
    """Result of nnU-Net's rule for a memory."""

    patch: tuple[int, ...]
    """(D, H, W) or (H, W), voxels."""
    batch: int
    """Patches in a step."""
    cnn: CnnSpec
    """The CNN."""


CnnRule = Callable[[float], CnnPlan]
"""nnU-Net's rule for one configuration; its argument is a memory target in GiB."""
