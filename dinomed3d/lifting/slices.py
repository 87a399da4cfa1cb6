"""A stack of slices as the views of a volume: the geometry of medical images.

Voxel (z, y, x) has its centre at z, y, x (the centre of the first voxel is 0); in the image of
slice z it lies at pixel (x + 0.5, y + 0.5), the centre of its pixel, times the enlargement.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SliceStack:
    """D parallel slices of H x W voxels, each possibly enlarged before it was encoded."""

    depth: int
    """Number of slices, D."""
    height: int
    """Rows of voxels in a slice, H."""
    width: int
    """Columns of voxels in a slice, W."""
    image_height: int
    """Rows of pixels of the encoded image; H if slices were not enlarged."""
    image_width: int
    """Columns of pixels of the encoded image."""

    def __post_init__(self) -> None:
        for name in ("depth", "height", "width", "image_height", "image_width"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"SliceStack: {name!r} must be at least 1, got {getattr(self, name)}"
                )

    def __len__(self) -> int:
        """Number of views: one per slice."""
        return self.depth

    def project(self, view: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project voxel positions into the image of one slice and test whether it shows them.

        Args:
            view: slice number, 0 to D - 1.
            points: (N, 3) voxel positions (z, y, x), fractions allowed.

        Returns:
            (N, 2) pixel positions (x, y); (N,) visible: this is the nearest slice (the upper one of
            two equally near) and the point is inside the image; (N,) distance to the slice, voxels.
        """
        z, y, x = points.unbind(-1)
        uv = torch.stack(
            [
                (x + 0.5) * (self.image_width / self.width),
                (y + 0.5) * (self.image_height / self.height),
            ],
            dim=-1,
        )
        inside = (x >= -0.5) & (x < self.width - 0.5) & (y >= -0.5) & (y < self.height - 0.5)
        return uv, inside & (torch.floor(z + 0.5) == view), (z - view).abs()

    def voxel_centres(self) -> Tensor:
        """(D * H * W, 3) positions (z, y, x) of all voxels, in memory order."""
        return torch.cartesian_prod(
            torch.arange(self.depth, dtype=torch.float32),
            torch.arange(self.height, dtype=torch.float32),
            torch.arange(self.width, dtype=torch.float32),
        )

    def token_centres(self, stride: int) -> Tensor:
        """(D * h * w, 3) positions (z, y, x) of the centres of all feature cells, in memory order.

        Args:
            stride: pixels per cell; divides both image sides.

        Raises:
            ValueError: it does not, so that the last cells would lie partly outside.
        """
        if self.image_height % stride or self.image_width % stride:
            raise ValueError(
                f"SliceStack.token_centres: 'stride' must divide the image of "
                f"{self.image_height} x {self.image_width} pixels, got {stride}"
            )
        h, w = self.image_height // stride, self.image_width // stride
        return torch.cartesian_prod(
            torch.arange(self.depth, dtype=torch.float32),
            (torch.arange(h) + 0.5) * (self.height / h) - 0.5,
            (torch.arange(w) + 0.5) * (self.width / w) - 0.5,
        )


def neighbour_slices(centres: Tensor, *, slices: int, depth: int) -> Tensor:
    """Which slices are read together with each slice; beyond the ends the end slice is repeated.

    Args:
        centres: (N,) int64 slice numbers, 0 to D - 1.
        slices: K, odd.
        depth: D.

    Returns:
        (N, K) slice numbers in increasing order, the slice itself in the middle.

    Raises:
        ValueError: K is even or below 1.
    """
    if slices < 1 or slices % 2 == 0:
        raise ValueError(f"neighbour_slices: 'slices' (K) must be odd and at least 1, got {slices}")
    offsets = torch.arange(-(slices // 2), slices // 2 + 1, device=centres.device)
    return (centres[:, None] + offsets).clamp(0, depth - 1)


def stack_slices(volume: Tensor, *, slices: int, halo: tuple[int, int] = (0, 0)) -> Tensor:
    """Every slice with its neighbours (`neighbour_slices`) as channels.

    With slices = 3 the channels of slice z are slices z - 1, z, z + 1 (each with its C modalities).

    Args:
        volume: (B, C, below + D + above, H, W).
        slices: K, odd.
        halo: (below, above), slices at both ends that are read as neighbours alone: the true ones of a
            window inside a larger volume. Only where they do not suffice the end slice is repeated.

    Returns:
        (B * D, K * C, H, W), all slices of a volume one after the other.

    Raises:
        ValueError: K is even or below 1; a halo is negative or leaves no slice.
    """
    depth = volume.shape[2]
    if min(halo) < 0 or sum(halo) >= depth:
        raise ValueError(f"stack_slices: 'halo' must leave some of {depth} slices, got {halo}")
    centres = torch.arange(halo[0], depth - halo[1], device=volume.device)
    index = neighbour_slices(centres, slices=slices, depth=depth)
    neighbours = volume[:, :, index]  # (B, C, D, K, H, W)
    return neighbours.permute(0, 2, 3, 1, 4, 5).flatten(2, 3).flatten(0, 1)


def unstack_slices(maps: Tensor, *, depth: int) -> Tensor:
    """Feature maps of all slices as volumes: the fast path of lifting, a reshape.

    Args:
        maps: (B * D, C, h, w), all slices of a volume one after the other.
        depth: D.

    Returns:
        (B, C, D, h, w): what `lift` gives at `SliceStack.token_centres`.
    """
    return maps.unflatten(0, (-1, depth)).transpose(1, 2)
