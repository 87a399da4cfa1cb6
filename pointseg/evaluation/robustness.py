"""What goes wrong in the field, done to test scenes on purpose: lost cameras, bad calibration, no colour."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from pointseg.scene import Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

GREY = 127.5
"""What a dropped colour becomes, of 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """How test scenes are made worse; the default leaves them as they are."""

    drop_views: float = 0.0
    """Share of the views that is lost, at random; 1: all."""
    pixel_noise: float = 0.0
    """Standard deviation by which each camera's principal point is off, pixels of its image."""
    angle_noise_deg: float = 0.0
    """Standard deviation by which each camera is turned about each of its axes, degrees."""
    drop_color: bool = False
    """All points are grey."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_views <= 1:
            raise UserError(f"--drop-views must be a share from 0 to 1, got {self.drop_views}")
        for option, value in (
            ("--pixel-noise", self.pixel_noise),
            ("--angle-noise", self.angle_noise_deg),
        ):
            if not 0 <= value < float("inf"):
                raise UserError(f"{option} must be >= 0, got {value}")

    @property
    def suffix(self) -> str:
        """For names of results, such as -pixel-noise-5; empty where nothing is made worse."""
        parts = {
            "drop-views": self.drop_views,
            "pixel-noise": self.pixel_noise,
            "angle-noise": self.angle_noise_deg,
        }
        words = [f"-{name}-{value:g}" for name, value in parts.items() if value]
        return "".join(words) + ("-drop-color" if self.drop_color else "")

    @property
    def of_cameras(self) -> bool:
        """Whether anything happens to views."""
        return bool(self.drop_views or self.pixel_noise or self.angle_noise_deg)

    def scene(self, scene: Scene) -> Scene:
        """What happens to points."""
        if not self.drop_color or "color" not in scene:
            return scene
        return scene.with_fields(color=np.full_like(scene["color"], GREY))

    def frames(self, scene: str, frames: Sequence[Frame]) -> list[Frame]:
        """What happens to a scene's views: the same each time, for it follows from the names."""
        names = "\n".join([scene, *(frame.name for frame in frames)])
        told = names.encode("utf-8", "surrogateescape")
        seed = int.from_bytes(hashlib.sha256(told).digest()[:8], "little")
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(frames))
        # a share of a view is lost with that probability
        lost = int(np.floor(self.drop_views * len(frames) + rng.random()))
        kept = np.sort(order[: len(frames) - lost])
        return [self._shaken(frames[i], rng) for i in kept]

    def _shaken(self, frame: Frame, rng: np.random.Generator) -> Frame:
        shift = torch.from_numpy(rng.normal(0, 1, 2)) * self.pixel_noise
        turn = torch.from_numpy(np.deg2rad(rng.normal(0, 1, 3))) * self.angle_noise_deg
        camera = frame.camera
        intrinsics = camera.intrinsics.clone()
        intrinsics[:2, 2] += shift.to(intrinsics)
        moved = torch.eye(4, dtype=torch.float64)
        moved[:3, :3] = _rotation(turn)
        pose = moved.to(camera.world_to_camera) @ camera.world_to_camera
        return replace(frame, camera=replace(camera, intrinsics=intrinsics, world_to_camera=pose))


def _rotation(turn: Tensor) -> Tensor:
    """(3, 3) rotation by a vector along its axis, radians."""
    x, y, z = turn.tolist()
    return torch.linalg.matrix_exp(
        torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    )
