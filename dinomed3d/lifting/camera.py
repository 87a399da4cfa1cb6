"""A posed pinhole camera with lens distortion.

Pixels: u to the right, v down; the first pixel covers [0, 1), its centre is 0.5. Camera axes: x right,
y down, z forward. Lengths in metres (or any other unit, if the same everywhere).

All geometry is computed in float64, also from float32 points. Where a device has none (MPS), it is
computed in float32 relative to the camera, whose position is subtracted first and in two parts:
coordinates of 1e7 m then lose no precision that the points still had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

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


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """One posed pinhole view, with or without lens distortion. Held on the CPU in float64."""

    intrinsics: Tensor
    """(3, 3) K of images of ``size``, rows (fx, skew, cx), (0, fy, cy), (0, 0, 1); pixels."""
    size: tuple[int, int]
    """(H, W) pixels."""
    world_to_camera: Tensor
    """(4, 4) rigid."""
    distortion: Tensor | None = None
    """(5,) k1, k2, p1, p2, k3 in OpenCV's order; None for no distortion."""

    def __post_init__(self) -> None:
        for name in ("intrinsics", "world_to_camera", "distortion"):
            value = getattr(self, name)
            if value is not None:
                value = torch.as_tensor(value).detach().to("cpu", torch.float64)
                object.__setattr__(self, name, value)
        object.__setattr__(self, "size", (int(self.size[0]), int(self.size[1])))
        if min(self.size) < 1:
            raise ValueError(f"Camera: 'size' must be (H, W), at least 1 pixel, got {self.size}")
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
        if self.distortion is not None and (
            tuple(self.distortion.shape) != (5,) or not self.distortion.isfinite().all()
        ):
            raise ValueError(
                f"Camera: 'distortion' must be five finite numbers k1, k2, p1, p2, k3, "
                f"got {self.distortion.tolist()}"
            )

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
            (N, 2) pixels (u, v), NaN where a point has no image: not in front of the camera, or
            beyond the angle up to which the distortion is one to one; (N,) depth along z. Both
            float64 (float32 on devices without).

        Source: pinhole model; distortion: Brown 1966, in OpenCV's order of coefficients.
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
            x, y = self._distort(*plane.unbind(-1))
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
            x, y = self._undistort(x, y)
        known = (depth > 0) & depth.isfinite()
        z = torch.where(known, depth, torch.nan).to("cpu", torch.float64)
        rays = torch.stack([x * z, y * z, z], dim=-1)
        back = torch.linalg.inv(self.world_to_camera[:3, :3])
        return (rays @ back.T + self.centre).to(exact_type(depth.device)).to(depth.device)

    def _distort(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        assert self.distortion is not None
        k1, k2, p1, p2, k3 = self.distortion.tolist()
        square = x * x + y * y
        square = torch.where(square < _turning_point(k1, k2, k3), square, torch.nan)
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        both = 2 * x * y
        return (
            x * radial + p1 * both + p2 * (square + 2 * x * x),
            y * radial + p1 * (square + 2 * y * y) + p2 * both,
        )

    def _undistort(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Newton's iteration; NaN where nothing is distorted to (x, y)."""
        assert self.distortion is not None
        k1, k2, p1, p2, k3 = self.distortion.tolist()
        a, b = x, y
        for _ in range(20):
            square = a * a + b * b
            radial = 1 + square * (k1 + square * (k2 + square * k3))
            slope = 2 * (k1 + square * (2 * k2 + square * 3 * k3))
            error_x = a * radial + 2 * p1 * a * b + p2 * (square + 2 * a * a) - x
            error_y = b * radial + p1 * (square + 2 * b * b) + 2 * p2 * a * b - y
            xx = radial + slope * a * a + 2 * p1 * b + 6 * p2 * a
            yy = radial + slope * b * b + 6 * p1 * b + 2 * p2 * a
            xy = slope * a * b + 2 * p1 * a + 2 * p2 * b
            determinant = xx * yy - xy * xy
            a = a - (yy * error_x - xy * error_y) / determinant
            b = b - (xx * error_y - xy * error_x) / determinant
        back_x, back_y = self._distort(a, b)
        found = ((back_x - x).abs() < 1e-9) & ((back_y - y).abs() < 1e-9)
        return torch.where(found, a, torch.nan), torch.where(found, b, torch.nan)


def exact_type(device: torch.device) -> torch.dtype:
    """The floating-point type of geometry on a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def _turning_point(k1: float, k2: float, k3: float) -> float:
    """Square of the radius up to which radial distortion grows with the radius.

    Beyond it the model folds back, and points far outside the image would appear in it.
    """
    slope = [1.0, 3 * k1, 5 * k2, 7 * k3]  # of r (1 + k1 r^2 + ...), in powers of r^2
    while slope[-1] == 0:
        slope.pop()
    degree = len(slope) - 1
    if degree == 0:
        return math.inf
    companion = torch.diag(torch.ones(degree - 1, dtype=torch.float64), -1)
    companion[:, -1] = -torch.tensor(slope[:-1], dtype=torch.float64) / slope[-1]
    roots = torch.linalg.eigvals(companion)
    real = roots.real[(roots.imag.abs() < 1e-9 * (1 + roots.real.abs())) & (roots.real > 0)]
    return float(real.min()) if len(real) else math.inf
