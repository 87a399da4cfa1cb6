"""Corrupted test scenes: missing cameras, miscalibration, missing colour."""

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
"""The value that replaces dropped colours, of 0 to 255."""


@dataclass(frozen=True, kw_only=True)
class Corruption:
    """How test scenes are corrupted; the default leaves them unchanged."""

    drop_views: float = 0.0
    """Share of the views that are lost at random; 1: all."""
    pixel_noise: float = 0.0
    """Standard deviation of an error of each camera's principal point, pixels of its image."""
    angle_noise_deg: float = 0.0
    """Standard deviation of a rotation of each camera about each of its axes, degrees."""
    drop_color: bool = False
    """Whether all points are grey."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_views <= 1:
            raise UserError(f"--drop-views: must be from 0 to 1, got {self.drop_views}")
        for option, value in (
            ("--pixel-noise", self.pixel_noise),
            ("--angle-noise", self.angle_noise_deg),
        ):
            if not 0 <= value < float("inf"):
                raise UserError(f"{option}: must be >= 0, got {value}")

    @property
    def suffix(self) -> str:
        """Suffix for the folder of results, such as -pixel-noise-5; empty without corruption."""
        values = {
            "drop-views": self.drop_views,
            "pixel-noise": self.pixel_noise,
            "angle-noise": self.angle_noise_deg,
        }
        words = [f"-{name}-{value:g}" for name, value in values.items() if value]
        return "".join(words) + ("-drop-color" if self.drop_color else "")

    @property
    def affects_cameras(self) -> bool:
        """Whether views are corrupted."""
        return bool(self.drop_views or self.pixel_noise or self.angle_noise_deg)

    def corrupt_scene(self, scene: Scene) -> Scene:
        """The scene with corrupted points."""
        if not self.drop_color or "color" not in scene:
            return scene
        return scene.with_fields(color=np.full_like(scene["color"], GREY))

    def corrupt_frames(self, scene: str, frames: Sequence[Frame]) -> list[Frame]:
        """The views of a scene, corrupted the same way each time: the seed follows from the names."""
        names = "\n".join([scene, *(frame.name for frame in frames)])
        digest = hashlib.sha256(names.encode("utf-8", "surrogateescape")).digest()
        rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        order = rng.permutation(len(frames))
        # a fractional view is lost with that probability
        lost = int(np.floor(self.drop_views * len(frames) + rng.random()))
        kept = np.sort(order[: len(frames) - lost])
        return [self._miscalibrated(frames[i], rng) for i in kept]

    def _miscalibrated(self, frame: Frame, rng: np.random.Generator) -> Frame:
        shift = torch.from_numpy(rng.normal(0, 1, 2)) * self.pixel_noise
        turn = torch.from_numpy(np.deg2rad(rng.normal(0, 1, 3))) * self.angle_noise_deg
        if not (self.pixel_noise or self.angle_noise_deg):
            return frame
        camera = frame.camera
        intrinsics = camera.intrinsics.clone()
        intrinsics[:2, 2] += shift.to(intrinsics)
        moved = torch.eye(4, dtype=torch.float64)
        moved[:3, :3] = _rotation(turn)
        pose = moved.to(camera.world_to_camera) @ camera.world_to_camera
        moved_camera = replace(camera, intrinsics=intrinsics, world_to_camera=pose)
        return replace(
            frame, camera=moved_camera, projection=None
        )  # which a wrong camera would not have


def _rotation(turn: Tensor) -> Tensor:
    """(3, 3) rotation by a vector along its axis, radians."""
    x, y, z = turn.tolist()
    return torch.linalg.matrix_exp(
        torch.tensor([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]], dtype=torch.float64)
    )
