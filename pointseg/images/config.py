"""How a network uses images: the encoder, the views, visibility and fusion. Part of every checkpoint's recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dinomed3d.runtime.errors import UserError
from pointseg.conventions import CHOOSING_FUSES, DEFAULT_ENCODER, FUSES, POOLINGS, SAMPLES
from pointseg.images.visibility import VisibilityConfig


@dataclass(frozen=True, kw_only=True)
class ImageConfig:
    """All settings of images that change what a network learns; the defaults are those of DITR.

    Raises:
        UserError: a value is out of its range.

    Source: DITR (Knaebel et al. 2025), section 3, and its published configurations.
    """

    encoder: str = DEFAULT_ENCODER
    """Name of the image encoder, one of ``dinomed3d.lifting.MODELS``."""
    encoder_config: Mapping[str, Any] = field(default_factory=dict)
    """Arguments for timm that give the encoder another size."""
    taps: tuple[int, ...] = (-1,)
    """Blocks of the encoder whose output is read, each after the final norm, one after the other as channels:
    0 is the first block, -1 the last one. (-4, -3, -2, -1): the last four."""
    weights_sha256: str = ""
    """Digest of the encoder's weights (``weights_digest``); filled in when the encoder is opened."""
    channels: int = 0
    """Channels of the features, of all ``taps`` together; filled in when the encoder is opened."""
    stride: int = 0
    """Side of the encoder's patches in pixels; filled in when the encoder is opened."""
    size: tuple[int, ...] = (480, 640)
    """Height and width in pixels to which images are resized before they are encoded: whole patches."""
    tile: int | None = None
    """Side in pixels of the tiles in which larger images are encoded, whole patches. They overlap, and each feature
    is taken from the tile in which it is farthest from the border. None: images are encoded as a whole."""
    views: int | None = 10
    """Maximum number of views per scene: drawn at random in training, evenly spaced otherwise; None: all."""
    visibility: VisibilityConfig = field(default_factory=VisibilityConfig)
    """When a point is visible in a view."""
    fuse: str = "last"
    """How a point visible in several views gets its feature: last (of views in random order in training),
    random (the last outside of training), nearest (camera), mean or max."""
    sample: str = "nearest"
    """How a feature map is read at a projected point: nearest (patch) or bilinear."""
    pooling: str = "max"
    """How features are pooled to coarser levels: max (zeros of invisible points included, as in DITR's
    code), masked_max or masked_mean (visible points only)."""
    missing_token: bool = False
    """Whether points visible in no view take a learned feature instead of zeros."""
    view_drop: float = 0.0
    """Probability in training that a whole view is dropped, which makes the network robust to lost cameras;
    its points take the feature of another view that sees them."""
    point_drop: float = 0.0
    """Probability in training that the image feature of a point is dropped."""
    allow_missing_images: bool = False
    """Whether scenes without images, or whose images show none of their points, are accepted."""
    augment: bool = True
    """Whether images are augmented in training (colour jitter and mirroring)."""

    def __post_init__(self) -> None:
        for name, known in (("fuse", FUSES), ("sample", SAMPLES), ("pooling", POOLINGS)):
            value = getattr(self, name)
            _require(name, value, value in known, f"one of {', '.join(known)}")
        size, views = self.size, self.views
        _require("size", size, len(size) == 2 and min(size) >= 1, "height and width in pixels")
        taps, tile = self.taps, self.tile
        _require("taps", taps, 0 < len(taps) == len(set(taps)), "block numbers, each once")
        _require("tile", tile, tile is None or tile >= 1, "pixels, or null for none")
        _require("views", views, views is None or views >= 1, ">= 1, or null for all")
        for name in ("view_drop", "point_drop"):
            value = getattr(self, name)
            _require(name, value, 0 <= value < 1, "a probability below 1")

    @property
    def chooses_view(self) -> bool:
        """Whether each point's feature is read from one view."""
        return self.fuse in CHOOSING_FUSES

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields of scenes and clouds that say where points lie in images."""
        return ("image_coord", "image_mask", *(("image_view",) if self.chooses_view else ()))

    def with_visibility_of(self, other: ImageConfig) -> ImageConfig:
        """The same settings with the number of views and the visibility of another configuration."""
        return replace(self, views=other.views, visibility=other.visibility)

    def viewing_as_dict(self) -> dict[str, Any]:
        """All that decides which points are visible (image size, number of views, visibility), for reports."""
        return {"size": list(self.size), "views": self.views, **self.visibility.as_dict()}

    def viewing_in_words(self) -> str:
        """The same on one line."""
        height, width = self.size
        views = "all images" if self.views is None else f"up to {self.views} images"
        return f"{views} of {height} x {width} pixels; points {self.visibility}"


def whole_patches(size: Sequence[int], patch: int) -> tuple[int, int]:
    """The whole number of patches nearest to a size, at least one; upwards between two.

    Args:
        size: height and width, pixels.
        patch: side of a patch, pixels.
    """
    height, width = (patch * max(1, (2 * side + patch) // (2 * patch)) for side in size)
    return height, width


def require_whole_patches(size: Sequence[int], patch: int, encoder: str, option: str) -> None:
    """Refuse a size of images or tiles that would cut patches: the last row and column would show repeated pixels.

    Args:
        size: height and width, pixels.
        patch: side of the encoder's patches, pixels.
        encoder: its name, for the message.
        option: how a size is set, with two braces for its numbers, for the message.

    Raises:
        UserError: a side is no multiple of the patch.
    """
    if any(side % patch for side in size):
        near = option.format(*whole_patches(size, patch))
        raise UserError(
            f"images or tiles of {size[0]} x {size[1]} pixels are no whole patches of {encoder}, which have {patch} "
            f"pixels; the nearest size that is: {near}"
        )


def _require(name: str, value: Any, holds: bool, what: str) -> None:
    if not holds:
        raise UserError(f"ImageConfig: '{name}' must be {what}, got {value!r}")
