"""Lifting on devices other than CPUs: few and large pieces, and as few waits for the device as can be.

A CPU is fastest with what fits into its cache, and asks at once which points a view sees. Elsewhere every operation is
a launch, and to learn how many points there are is to wait for all that was launched before.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dinomed3d.lifting.encoder import FeatureMap
from dinomed3d.lifting.fusion import ViewFusion

CHUNK_MIB = 256.0
"""What is computed at a time; of bilinear reading there are several at once."""
MAPS_MIB = 1024.0
"""Maps that are laid out for reading at a time."""

_ALL = 2**31
"""More points than there are."""

Sample = Callable[[FeatureMap, "int | Tensor", Tensor], Tensor]
"""As in ``lift``."""


def is_cpu(device: torch.device) -> bool:
    """Whether the ways of a CPU are taken."""
    return device.type == "cpu"


def rows_at_once(values: Tensor, chunk: int) -> int:
    """Points whose features fit into ``chunk`` bytes; all points where gradients are recorded."""
    if torch.is_grad_enabled() and values.requires_grad:
        return _ALL
    return max(1, chunk // max(1, values.shape[1] * values.element_size()))


def rows_of_views(maps: FeatureMap, chunk: int) -> int:
    """Points whose features fit into ``chunk`` bytes, and whose pixels in all V views do not take much more."""
    step, views = rows_at_once(maps.values, chunk), max(1, len(maps.values))
    return step if step >= _ALL else min(step, max(1, chunk // (8 * views)))


def sample_every(
    maps: FeatureMap,
    view: Tensor,
    uv: Tensor,
    *,
    sample: Sample,
    chunk: int = int(CHUNK_MIB * 2**20),
) -> Tensor:
    """Read each point from its view, without asking which points have one: nothing waits for the device.

    Args:
        maps: of V images, best channels last in memory.
        view: (N,) int64, below V; below 0: none, and 0 is what comes out.
        uv: (N, 2) pixels; of points without a view any values.
        sample: how a map is read.
        chunk: bytes of features that are read at a time.

    Returns:
        (N, C).
    """
    seen = (view >= 0)[:, None]
    view, uv = view.clamp(min=0), torch.where(seen, uv, 0)
    step = rows_at_once(maps.values, chunk)
    parts = [
        torch.where(some, sample(maps, number, at), 0)
        for some, number, at in zip(seen.split(step), view.split(step), uv.split(step), strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def add_every_view(
    fuse: ViewFusion,
    sample: Sample,
    maps: FeatureMap,
    project: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    start: int,
) -> None:
    """Add what the V views of some maps show of some points, with two waits for all views together.

    Args:
        fuse: takes the features.
        sample: how a map is read.
        maps: of the V views.
        project: gives (n, 2) pixels, (n,) visible and (n,) distance of these points in one of the views.
        start: number of the first of the n points.
    """
    seen = [project(view) for view in range(len(maps.values))]
    if not seen:
        return
    visible = torch.stack([shown for _, shown, _ in seen])  # (V, n)
    pairs = torch.nonzero(visible)  # by view, then by point
    counts = visible.sum(1).tolist()
    for view, index in enumerate(pairs[:, 1].split(counts)):
        uv, _, distance = seen[view]
        at, away = uv.index_select(0, index), distance.index_select(0, index)
        fuse.add(index + start, sample(maps, view, at), away)


def choose_last(
    project: Callable[[int], tuple[Tensor, Tensor, Tensor]], views: int, points: Tensor
) -> tuple[Tensor, Tensor | None]:
    """The last view that sees each of some points, without asking which points one sees.

    Args:
        project: as in ``add_every_view``.
        views: number of views.
        points: (n,) anything on the device.

    Returns:
        (n,) int64 views, -1 where none; (n, 2) pixels there. None without any view.
    """
    chosen, at = torch.full((len(points),), -1, device=points.device), None
    for view in range(views):
        uv, visible, _ = project(view)
        chosen = chosen.masked_fill(visible, view)
        at = uv if at is None else torch.where(visible[:, None], uv, at)
    return chosen, at
