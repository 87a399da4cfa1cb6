"""A posed camera with lens distortion.

Pixels: u to the right, v down; the first pixel covers [0, 1), its centre is 0.5. Camera axes: x right,
y down, z forward. Lengths in metres (or any other unit, if the same everywhere).

All geometry is computed in float64, also from float32 points. Where a device has none (MPS), it is
computed in float32 relative to the camera, whose position is subtracted first and in two parts:
coordinates of 1e7 m then lose no precision that the points still had.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dinomed3d.lifting.camera_call import as_lens, as_matrix, as_size, named_fields
from dinomed3d.lifting.lens import Lens

RIGID_TOLERANCE = 1e-3
"""Largest deviation of R^T R from the identity: poses are often written with few digits."""


def check_rigid(matrix: Tensor, who: str) -> None:
    """Refuse a matrix that is not a rotation with a translation.

    Args:
        matrix: (4, 4).
        who: owner of the matrix, with which the message begins.

    Raises:
        ValueError: not (4, 4), not finite, another last row than 0 0 0 1, scaled, sheared or a
            mirror image; the message says which.
    """
    if tuple(matrix.shape) != (4, 4):
        raise ValueError(f"{who} must be a (4, 4) matrix, got {tuple(matrix.shape)}")
    matrix = matrix.detach().cpu().double()
    wrong = "not a rigid transform"
    if not matrix.isfinite().all():
        raise ValueError(
            f"{who} is {wrong}: it holds values that are not finite (a frame whose tracking was "
            f"lost?); leave this view out"
        )
    if not torch.allclose(matrix[3], matrix.new_tensor([0.0, 0, 0, 1]), rtol=0, atol=1e-6):
        last = ", ".join(f"{value:g}" for value in matrix[3].tolist())
        hint = "; is it transposed?" if matrix[3, :3].any() and not matrix[:3, 3].any() else ""
        raise ValueError(f"{who} is {wrong}: its last row must be 0, 0, 0, 1, got {last}{hint}")
    rotation = matrix[:3, :3]
    determinant = float(torch.linalg.det(rotation))
    error = float((rotation.T @ rotation - torch.eye(3).double()).abs().max())
    if error > RIGID_TOLERANCE:
        scale = abs(determinant) ** (1 / 3)
        even = scale > 0 and float(
            (rotation.T @ rotation / scale**2 - torch.eye(3).double()).abs().max()
        )
        what = (
            f"its axes are scaled by {scale:.4g}"
            if scale > 0 and even <= RIGID_TOLERANCE
            else f"its axes are not orthonormal (off by {error:.2g})"
        )
        raise ValueError(f"{who} is {wrong}: {what}, determinant {determinant:.4g}")
    if determinant < 0:
        raise ValueError(
            f"{who} is {wrong}: it mirrors (determinant {determinant:.4g}); camera axes must be "
            f"x right, y down, z forward"
        )


@named_fields
@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """One posed view, with or without lens distortion. Copied to the CPU in float64; arrays are taken, too."""

    intrinsics: Tensor
    """(3, 3) K of images of ``size``, rows (fx, skew, cx), (0, fy, cy), (0, 0, 1); pixels."""
    size: tuple[int, int]
    """(H, W) pixels."""
    world_to_camera: Tensor
    """(4, 4) rigid."""
    distortion: Lens | None = None
    """How the lens distorts; None for no distortion. Numbers are taken, too: k1, k2, p1, p2, k3 as in OpenCV."""

    if TYPE_CHECKING:  # what a call may give is more than what a camera then holds

        def __init__(
            self,
            *,
            intrinsics: Tensor | ArrayLike,
            size: Iterable[int],
            world_to_camera: Tensor | ArrayLike,
            distortion: Lens | Tensor | ArrayLike | None = None,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("intrinsics", "world_to_camera"):
            object.__setattr__(self, name, as_matrix(name, getattr(self, name)))
        object.__setattr__(self, "size", as_size(self.size))
        check_rigid(self.world_to_camera, "Camera: 'world_to_camera'")
        matrix = self.intrinsics
        if tuple(matrix.shape) != (3, 3) or not matrix.isfinite().all():
            raise ValueError(
                f"Camera: 'intrinsics' must be a finite (3, 3) matrix, got {matrix.tolist()}"
            )
        lower = torch.stack([matrix[1, 0], matrix[2, 0], matrix[2, 1], matrix[2, 2] - 1])
        if lower.any() or not matrix[0, 0] or not matrix[1, 1]:
            raise ValueError(
                f"Camera: 'intrinsics' must have rows (fx, skew, cx), (0, fy, cy), (0, 0, 1), "
                f"got {matrix.tolist()}"
            )
        object.__setattr__(self, "distortion", as_lens(self.distortion))

    @property
    def centre(self) -> Tensor:
        """(3,) float64 position of the camera in the world."""
        return -torch.linalg.solve(self.world_to_camera[:3, :3], self.world_to_camera[:3, 3])

    def resized(self, height: int, width: int) -> Camera:
        """The camera of the same image resized to H x W: positions move with the content."""
        scale = [width / self.size[1], height / self.size[0], 1.0]
        return replace(
            self,
            intrinsics=torch.diag(torch.tensor(scale, dtype=torch.float64)) @ self.intrinsics,
            size=(height, width),
        )

    def flipped(self) -> Camera:
        """The camera of the image mirrored left to right: u becomes W - u."""
        row = -self.intrinsics[0]
        row[2] += self.size[1]
        return replace(self, intrinsics=torch.stack([row, *self.intrinsics[1:]]))

    def moved(self, origin: Tensor) -> Camera:
        """The camera for points given relative to ``origin``, (3,) in the world.

        Georeferenced points stay small in float32 this way: the camera moves, not the points.
        """
        matrix = self.world_to_camera.clone()
        matrix[:3, 3] += matrix[:3, :3] @ torch.as_tensor(origin).to("cpu", torch.float64)
        return replace(self, world_to_camera=matrix)

    def project(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Project points into the image plane, inside the image or not.

        Args:
            points: (N, 3) in the world, any float type.

        Returns:
            (N, 2) pixels (u, v), NaN where a point has no image: not in front of the camera (90 degrees
            off its axis or more, of a fisheye, too), or beyond the angle up to which the distortion is
            one to one; (N,) depth along z. Both float64 (float32 on devices without).

        Source: pinhole model, then `Lens`.
        """
        exact = exact_type(points.device)
        centre, rotation = self.centre, self.world_to_camera[:3, :3]
        if self.distortion is None:
            rotation = self.intrinsics @ rotation
        coarse = centre.to(exact)
        relative = points.to(exact) - coarse.to(points.device)
        if exact != torch.float64:
            relative = relative - (centre - coarse.double()).to(exact).to(points.device)
        rays = relative @ rotation.T.to(exact).to(points.device)
        depth = rays[:, 2]
        plane = rays[:, :2] / torch.where(depth > 0, depth, torch.nan)[:, None]
        if self.distortion is not None:
            x, y = self.distortion.distort(*plane.unbind(-1))
            (fx, skew, cx), (_, fy, cy), _ = self.intrinsics.tolist()
            plane = torch.stack([fx * x + skew * y + cx, fy * y + cy], dim=-1)
        return plane, depth

    def unproject(self, depth: Tensor) -> Tensor:
        """Back-project the pixels of a depth map into the world.

        Args:
            depth: (H, W) along z, of the camera's size (``resized`` first where it is not); not
                positive or not finite: unknown.

        Returns:
            (H, W, 3) float64 (float32 on devices without) for the pixels' centres; NaN where the
            depth is unknown or the distortion maps no ray to the pixel.

        Raises:
            ValueError: the depth map has another size.
        """
        if tuple(depth.shape) != self.size:
            raise ValueError(
                f"Camera.unproject: 'depth' must have the camera's size {self.size}, got "
                f"{tuple(depth.shape)}; use camera.resized(height, width).unproject(depth)"
            )
        height, width = self.size
        v, u = torch.meshgrid(
            torch.arange(height, dtype=torch.float64) + 0.5,
            torch.arange(width, dtype=torch.float64) + 0.5,
            indexing="ij",
        )
        (fx, skew, cx), (_, fy, cy), _ = self.intrinsics.tolist()
        y = (v - cy) / fy
        x = (u - cx - skew * y) / fx
        if self.distortion is not None:
            x, y = self.distortion.undistort(x, y)
        known = (depth > 0) & depth.isfinite()
        z = torch.where(known, depth, torch.nan).to("cpu", torch.float64)
        rays = torch.stack([x * z, y * z, z], dim=-1)
        back = torch.linalg.inv(self.world_to_camera[:3, :3])
        return (rays @ back.T + self.centre).to(exact_type(depth.device)).to(depth.device)


def exact_type(device: torch.device) -> torch.dtype:
    """The floating-point type of geometry on a device."""
    return torch.float32 if device.type == "mps" else torch.float64
