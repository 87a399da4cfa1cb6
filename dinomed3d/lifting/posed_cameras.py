"""Posed cameras as the views of a point cloud: which points each image shows, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from dinomed3d.lifting.camera import Camera, exact_type


def in_image(uv: Tensor, size: tuple[int, int]) -> Tensor:
    """Whether positions lie in an image.

    Args:
        uv: (N, 2) or (..., 2) pixels (u, v); the first pixel covers [0, 1).
        size: (H, W) pixels.

    Returns:
        (N,) or (...) True where 0 <= u < W and 0 <= v < H; never for NaN.
    """
    height, width = size
    u, v = uv.unbind(-1)
    return (u >= 0) & (u < width) & (v >= 0) & (v < height)


def depth_at(depth: Tensor, uv: Tensor, size: tuple[int, int]) -> Tensor:
    """Read a depth map at positions in an image, which may have another resolution.

    Args:
        depth: (h, w) with the field of view of the image.
        uv: (N, 2) pixels (u, v) of the image, inside it (`in_image`).
        size: (H, W) of the image, pixels.

    Returns:
        (N,) the depth of the cell that each position falls into, as the map holds it.
    """
    (rows, columns), (height, width) = depth.shape, size
    u, v = uv.unbind(-1)
    row = (v * (rows / height)).long().clamp(max=rows - 1)
    column = (u * (columns / width)).long().clamp(max=columns - 1)
    return depth[row, column]


class Cameras:
    """V posed cameras as the projector of ``lift``.

    A camera sees a point whose depth is within (``near``, ``far``), whose image is within
    [0, W) x [0, H) and, where there is a depth map, whose depth differs from that of the map by at
    most ``depth_tolerance``. Depth maps may have another resolution than the images, but must have
    the same field of view; 0, NaN and infinity in them mean unknown, and a point whose depth is
    unknown there is not visible. Maps are requested one at a time, so a sequence may read them lazily.
    """

    def __init__(
        self,
        cameras: Sequence[Camera],
        *,
        depths: Sequence[Tensor | None] | None = None,
        near: float = 0.0,
        far: float = math.inf,
        depth_tolerance: float = 0.2,
    ) -> None:
        """Check that cameras, depth maps and limits fit together.

        Args:
            cameras: V.
            depths: V maps (h, w) of depths along z, or None for views without occlusion test.
            near: metres, exclusive.
            far: metres, exclusive.
            depth_tolerance: metres by which a point may lie before or behind the depth map, inclusive.

        Raises:
            ValueError: not one depth (or None) per camera, or limits that leave nothing.
        """
        if depths is not None and len(depths) != len(cameras):
            raise ValueError(f"Cameras: {len(cameras)} cameras but {len(depths)} depth maps")
        if not 0 <= near < far:
            raise ValueError(f"Cameras: must be 0 <= near < far, got {near} and {far}")
        if not depth_tolerance >= 0:
            raise ValueError(
                f"Cameras: 'depth_tolerance' must not be negative, got {depth_tolerance}"
            )
        self.cameras = cameras
        self.depths = depths
        self.near, self.far, self.depth_tolerance = near, far, depth_tolerance
        self._known: tuple[int, torch.device, Tensor | None] | None = None

    def __len__(self) -> int:
        """Number of views, V."""
        return len(self.cameras)

    def project(self, view: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project points into one view and test whether it sees them.

        Args:
            view: 0 to V - 1.
            points: (N, 3) in the world.

        Returns:
            (N, 2) pixels (u, v), as from ``Camera.project``; (N,) visible; (N,) depth along z.
        """
        camera = self.cameras[view]
        uv, distance = camera.project(points)
        visible = in_image(uv, camera.size)
        if self.near > 0:
            visible &= distance > self.near
        if self.far < math.inf:
            visible &= distance < self.far
        depth = self._depth(view, points.device)
        if depth is not None:
            index = torch.nonzero(visible).squeeze(1)
            found = depth_at(depth, uv[index], camera.size)
            near = (distance[index] - found).abs() <= self.depth_tolerance
            visible[index] = near & (found > 0)
        return uv, visible, distance

    def _depth(self, view: int, device: torch.device) -> Tensor | None:
        """One depth map on a device, kept until another one is requested."""
        if self.depths is None:
            return None
        if self._known is None or self._known[:2] != (view, device):
            depth = self.depths[view]
            if depth is not None:
                if depth.ndim != 2 or 0 in depth.shape:
                    raise ValueError(
                        f"Cameras: depth map {view} must be (h, w), got {tuple(depth.shape)}"
                    )
                double = depth.dtype == torch.float64
                depth = depth.to(exact_type(device) if double else depth.dtype).to(device)
            self._known = view, device, depth
        return self._known[2]
