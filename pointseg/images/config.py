"""How a network is given images: which encoder, which views, what a point sees; written into every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dinomed3d.runtime.errors import UserError
from pointseg.images.visibility import OCCLUSIONS, Visibility

FUSES = ("last", "random", "mean", "max")
SAMPLES = ("nearest", "bilinear")
POOLINGS = ("max", "masked_max", "masked_mean")


@dataclass(frozen=True, kw_only=True)
class ImageRecipe:
    """Everything about images that decides what a network learns; the defaults are the reference's.

    Source: sections 2.2 to 2.8 of the method's description.
    """

    encoder: str = "vit_small_patch16_dinov3"
    """One of ``dinomed3d.lifting.MODELS``."""
    encoder_config: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for another size of it."""
    weights_sha256: str = ""
    """Stands for the encoder's weights (``encoding.weights_digest``); set when they are opened."""
    channels: int = 0
    """Of its features; set likewise."""
    stride: int = 0
    """Pixels along the side of one of its patches; set likewise."""
    size: tuple[int, ...] = (480, 640)
    """Height and width to which images are resized."""
    views: int | None = 10
    """Images of one scene, at most: drawn at random in training, evenly spread otherwise; None: all."""
    near_m: float = 0.0
    """What is nearer to a camera is not seen by it."""
    far_m: float | None = None
    """What is farther away is not seen; None: it is."""
    margin_m: float = 0.2
    """How far a point may lie behind what the depth map shows, or before it."""
    occlusion: str = "depth"
    """depth: by depth maps, where there are any; z-buffer: by the cloud itself where there are none; none."""
    fuse: str = "last"
    """Which feature a point takes of several views: last (of views in random order), random, mean, max."""
    sample: str = "nearest"
    """How a feature map is read: nearest patch or bilinear."""
    pooling: str = "max"
    """How features go to coarser levels: max (of zeros, too, as the reference does), masked_max, masked_mean."""
    missing_token: bool = False
    """Points that no view shows are given a learned feature instead of zeros."""
    view_drop: float = 0.0
    """Probability in training that a view is left out as a whole: so a network learns to lose cameras."""
    point_drop: float = 0.0
    """Probability in training that a point's features are left out."""
    allow_unseen: bool = False
    """Scenes without images, or whose images show no point, are taken as unseen instead of refused."""
    augment: bool = True
    """Images are varied in training: colours, and mirrored."""

    def __post_init__(self) -> None:
        for name, known in (
            ("fuse", FUSES), ("sample", SAMPLES), ("pooling", POOLINGS), ("occlusion", OCCLUSIONS),
        ):  # fmt: skip
            value = getattr(self, name)
            _require(name, value, value in known, f"one of {', '.join(known)}")
        size = self.size
        _require("size", size, len(size) == 2 and min(size) >= 1, "height and width in pixels")
        views, far = self.views, self.far_m
        _require("views", views, views is None or views >= 1, ">= 1, or null for all")
        _require("near_m", self.near_m, self.near_m >= 0, ">= 0 metres")
        _require("far_m", far, far is None or far > self.near_m, "above near_m, or null")
        _require("margin_m", self.margin_m, self.margin_m > 0, "> 0 metres")
        for name in ("view_drop", "point_drop"):
            value = getattr(self, name)
            _require(name, value, 0 <= value < 1, "a probability below 1")

    @property
    def visibility(self) -> Visibility:
        """When a camera sees a point."""
        return Visibility(
            near_m=self.near_m,
            far_m=self.far_m,
            margin_m=self.margin_m,
            occlusion=self.occlusion,
        )


def _require(name: str, value: Any, holds: bool, what: str) -> None:
    if not holds:
        raise UserError(f"ImageRecipe: '{name}' must be {what}, got {value!r}")
