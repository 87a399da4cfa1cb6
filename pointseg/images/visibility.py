"""When a camera sees a point that lies in its image."""

from __future__ import annotations

from dataclasses import dataclass

OCCLUSIONS = ("depth", "z-buffer", "none")


@dataclass(frozen=True, kw_only=True)
class Visibility:
    """When a camera sees a point that lies in its image.

    Source: section 2.2 of the method's description; the z-buffer goes beyond it.
    """

    near_m: float = 0.0
    """Points are seen beyond this distance along the camera's axis."""
    far_m: float | None = None
    """Points are seen before this distance; None: however far."""
    margin_m: float = 0.2
    """How far a point may lie before or behind what the depth map has there."""
    occlusion: str = "depth"
    """depth: by the depth maps of the frames that have one; z-buffer: by these, and by the cloud itself
    where there are none; none: all points in the image are seen."""

    def __post_init__(self) -> None:
        if self.occlusion not in OCCLUSIONS:
            raise ValueError(
                f"Visibility: 'occlusion' must be one of {', '.join(OCCLUSIONS)}, got {self.occlusion!r}"
            )

    @property
    def far(self) -> float:
        """Metres, perhaps infinite."""
        return float("inf") if self.far_m is None else self.far_m
