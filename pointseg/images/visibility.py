"""Settings of visibility: the range of distances and the occlusion test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from dinomed3d.runtime.errors import UserError

OCCLUSIONS = ("depth", "z-buffer", "none")


@dataclass(frozen=True, kw_only=True)
class VisibilityConfig:
    """Range of distances and occlusion test of the projection of points into images.

    Raises:
        UserError: a value is out of its range.

    Source: DITR (Knaebel et al. 2025), as its published configurations set it per dataset. Differs: the
    z-buffer, for images without depth maps, is an addition.
    """

    near_m: float = 0.0
    """Points nearer than this distance along the camera's axis, in metres, are not visible."""
    far_m: float | None = None
    """Points farther than this distance, in metres, are not visible; None: there is no limit."""
    depth_tolerance_m: float = 0.2
    """A point is occluded if its distance differs from the depth map by more than this, in metres."""
    occlusion: str = "depth"
    """What occludes points: "depth": the depth maps of the images that have one; "z-buffer": these, and
    a depth map rendered from the cloud where there is none; "none": nothing."""

    def __post_init__(self) -> None:
        if not self.near_m >= 0:
            raise UserError(f"VisibilityConfig: 'near_m' must be >= 0 metres, got {self.near_m}")
        if self.far_m is not None and not self.far_m > self.near_m:
            raise UserError(
                f"VisibilityConfig: 'far_m' must be above near_m ({self.near_m:g}), or null for no limit, "
                f"got {self.far_m}"
            )
        if not self.depth_tolerance_m > 0:
            raise UserError(
                f"VisibilityConfig: 'depth_tolerance_m' must be > 0 metres, got {self.depth_tolerance_m}"
            )
        if self.occlusion not in OCCLUSIONS:
            raise UserError(
                f"VisibilityConfig: 'occlusion' must be one of {', '.join(OCCLUSIONS)}, "
                f"got {self.occlusion!r}"
            )

    @property
    def far(self) -> float:
        """The largest visible distance in metres; infinite without a limit."""
        return float("inf") if self.far_m is None else self.far_m

    def as_dict(self) -> dict[str, Any]:
        """The values by name, for reports and JSON."""
        return asdict(self)

    def __str__(self) -> str:
        if self.far_m is not None:
            distance = f"{self.near_m:g} to {self.far_m:g} m away"
        else:
            distance = f"{self.near_m:g} m away or more" if self.near_m else "at any distance"
        tolerance = f"(tolerance {self.depth_tolerance_m:g} m)"
        occlusion = {
            "depth": f"occluded by depth maps where there are any {tolerance}",
            "z-buffer": f"occluded by depth maps or else by the cloud itself {tolerance}",
            "none": "never occluded",
        }[self.occlusion]
        return f"{distance}, {occlusion}"
