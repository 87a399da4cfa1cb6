"""Several clouds as one batch of tensors: points concatenated, ``offset`` says where each ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pointseg.ops.grouping.offsets import batch_of, counts_of

PER_POINT = (
    "coord", "grid_coord", "feat", "mask", "segment", "image_coord", "image_mask", "image_view",
)  # fmt: skip
"""Fields of a Cloud with a row for each of its points."""


@dataclass(frozen=True, kw_only=True)
class Cloud:
    """A batch of B clouds with N points altogether (Pointcept's layout).

    No two points of one cloud share a voxel where a sparse backbone is to read it.
    """

    coord: Tensor
    """(N, 3) float32 positions: metres, times ``input.scale`` of the recipe."""
    grid_coord: Tensor
    """(N, 3) int64 voxel coordinates, >= 0."""
    feat: Tensor
    """(N, C) input features of each point."""
    offset: Tensor
    """(B,) int64 cumulative counts; cloud b holds rows offset[b - 1] to offset[b]."""
    mask: Tensor | None = None
    """(N,) bool points whose embedding a network with a mask token replaces by it; others refuse it."""
    segment: Tensor | None = None
    """(N,) int64 labels, -1 is ignored."""
    image_coord: Tensor | None = None
    """(N, V, 2) float32 pixels (u right, v down) of each point in the views of its cloud."""
    image_mask: Tensor | None = None
    """(N, V) bool, whether the point is visible there."""
    image_view: Tensor | None = None
    """(N,) int16, the one view that each point is read from; then ``image_coord`` is (N, 1, 2) and
    ``image_mask`` (N, 1), of that view. None: they are of all views."""
    image_offset: Tensor | None = None
    """(S,) int64 as ``offset``, but of the samples whose images are looked up: Mix3D merges clouds,
    not their images. None: as ``offset``."""
    images: Tensor | None = None
    """(S, V, 3, H, W) uint8, the V views of each of the S samples; black where there are fewer."""
    image_maps: Tensor | None = None
    """(S, V, C, h, w) features of these images, where they are known already."""
    image_shown: Tensor | None = None
    """(S, V) bool, whether a view sees some point of its sample, where ``image_view`` alone does not tell."""
    source: Tensor | None = None
    """(S,) int64 which of several datasets each sample is of."""

    def __post_init__(self) -> None:
        count = len(self.coord)
        for name in PER_POINT:
            values = getattr(self, name)
            if values is not None and len(values) != count:
                raise ValueError(f"Cloud: '{name}' must have {count} rows, got {len(values)}")
        for name in ("offset", "image_offset"):
            if (ends := getattr(self, name)) is not None:
                _check_ends(name, ends, count)
        samples = len(self.offset if self.image_offset is None else self.image_offset)
        for name in ("images", "image_maps"):
            values = getattr(self, name)
            if values is not None and (values.dim() != 5 or len(values) != samples):
                raise ValueError(
                    f"Cloud: '{name}' must be ({samples}, V, C, H, W), got {tuple(values.shape)}"
                )

    def __len__(self) -> int:
        return len(self.coord)

    @property
    def counts(self) -> Tensor:
        """(B,) points of each cloud."""
        return counts_of(self.offset)

    @property
    def sample_ends(self) -> Tensor:
        """(S,) where each sample whose images are looked up ends."""
        return self.offset if self.image_offset is None else self.image_offset

    @property
    def batch(self) -> Tensor:
        """(N,) int64 number of the cloud that each point belongs to."""
        return batch_of(self.offset, len(self))

    def to(self, device: torch.device | str) -> Cloud:
        """All tensors on one device."""
        # a copy to memory is waited for: its values are looked at
        non_blocking = torch.device(device).type != "cpu"
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Cloud:
        """All tensors in pinned memory; the data loader calls this."""
        return self._each(lambda tensor: tensor.pin_memory())

    def _each(self, function: Any) -> Cloud:
        found = ((f.name, getattr(self, f.name)) for f in fields(self))
        return replace(self, **{name: function(t) for name, t in found if t is not None})


def _check_ends(name: str, ends: Tensor, count: int) -> None:
    """Refuse what are no cumulative counts of so many points, as far as that shows without waiting for a device."""
    if ends.dim() != 1 or len(ends) == 0:
        raise ValueError(f"Cloud: '{name}' must be (B,) with B >= 1, got {tuple(ends.shape)}")
    if ends.device.type != "cpu" or type(ends) is not Tensor or torch.compiler.is_compiling():
        return  # tensors of other types may have no values, such as those of a program that is traced
    found = ends.tolist()
    if found[-1] != count or any(end < start for start, end in pairwise([0, *found])):
        raise ValueError(f"Cloud: '{name}' must be cumulative counts up to {count}, got {found}")


def collate(clouds: Sequence[Cloud]) -> Cloud:
    """Join clouds, or batches of them, into one batch.

    Raises:
        ValueError: none given, or a field that only some of them have.
    """
    if not clouds:
        raise ValueError("collate: 'clouds' must hold at least one cloud")
    if wrong := [cloud for cloud in clouds if not isinstance(cloud, Cloud)]:
        raise ValueError(
            f"collate: 'clouds' must be pointseg.Cloud(coord=..., grid_coord=..., feat=..., offset=...), got "
            f"{type(wrong[0]).__name__}"
        )
    joined: dict[str, Tensor | None] = {}
    for name in (f.name for f in fields(Cloud)):
        values = [getattr(cloud, name) for cloud in clouds]
        missing = sum(value is None for value in values)
        if 0 < missing < len(values):
            raise ValueError(
                f"collate: '{name}' must be in all clouds or in none, {missing} lack it"
            )
        if missing:
            joined[name] = None
        elif name.endswith("offset"):
            starts = torch.tensor([0, *(len(cloud) for cloud in clouds[:-1])]).cumsum(0)
            joined[name] = torch.cat(
                [v + start.to(v.device) for v, start in zip(values, starts, strict=True)]
            )
        else:
            joined[name] = torch.cat(values)
    return Cloud(**joined)  # type: ignore[arg-type]
