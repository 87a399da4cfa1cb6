"""What ``pointseg-lift`` is asked for, and what came out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dinomed3d.lifting import Encoder
from pointseg.conventions import LIFT_FUSES
from pointseg.datasets.folder.cameras import CameraRule
from pointseg.images.visibility import VisibilityConfig
from pointseg.lifting.feature_file import SUFFIXES


@dataclass(frozen=True, kw_only=True)
class LiftSpec:
    """Which cloud gets features of which images, and what is written."""

    cloud: Path
    """The file of the cloud."""
    out: Path
    """The file to write: features (``.npz``, ``.safetensors``), or a cloud in colours (any other type)."""
    cameras: CameraRule
    """Where the posed images are."""
    encoder: str
    """Name of the image encoder."""
    open_encoder: Callable[[], Encoder]
    """Opens it; called when it is certain that images show points."""
    image_size: tuple[int, int] | None = None
    """Height and width to which images are resized. None: their own, or smaller with their aspect ratio."""
    max_views: int | None = None
    """Images that are used, at most, evenly spread over those that have points in view. None: all."""
    fuse: str = LIFT_FUSES[0]
    """How the features of several views become one."""
    sample: str = "bilinear"
    """How a feature map is read."""
    per_view: bool = False
    """Whether the features of each view are written instead of fused ones."""
    half: bool = False
    """Whether features are written as float16 instead of float32."""
    pick: tuple[float, ...] | None = None
    """Row, or x, y and z, of the point to which the others are compared. None: colours are principal components."""
    visibility: VisibilityConfig = VisibilityConfig(occlusion="z-buffer")
    """When a point is visible in an image."""
    unit_m: float | None = None
    """Metres per unit of coordinates and poses. None: as the file says, else metres."""
    up: str = "z"
    """The vertical axis: z, y or -y."""
    picture: bool = True
    """Whether a picture is drawn."""
    overwrite: bool = False
    """Whether an existing result is replaced."""
    device: str = "cpu"
    """Where the encoder computes."""
    say: Callable[[str], None] = print
    """Receives notes."""
    phase: Callable[[str, int, int], None] = lambda phase, done, total: None
    """Called with the step of the run, and how many of how many of its parts are done."""

    @property
    def writes_features(self) -> bool:
        """Whether the result is a file of features."""
        return self.out.suffix.lower() in SUFFIXES

    @property
    def picture_file(self) -> Path:
        """Where the picture goes."""
        return self.out.with_name(f"{self.out.name}.png")

    @property
    def record_file(self) -> Path:
        """Where it is written how the result was made."""
        return self.out.with_name(f"{self.out.name}.json")


@dataclass(frozen=True, kw_only=True)
class LiftResult:
    """What was lifted."""

    points: int
    """Points of the file."""
    seen: int
    """Points that an image shows."""
    views: int
    """Images that show points."""
    frames: int
    """All images."""
    shown: int
    """Pairs of a point and an image that shows it."""
    channels: int
    """Features of each point."""
    seconds: float
    """Time for everything."""
    picked: str = ""
    """The picked point, in words."""

    def __str__(self) -> str:
        share = self.seen / max(1, self.points)
        each = self.shown / max(1, self.seen)
        picked = f"; similarity to {self.picked}" if self.picked else ""
        return (
            f"{share:.1%} of {self.points} points are visible in {self.views} of {self.frames} images, in {each:.1f} "
            f"each; {self.channels} features{picked}; {self.seconds:.0f} s"
        )
