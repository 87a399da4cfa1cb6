"""The way through the core: encode -> project -> sample -> fuse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from dinomed3d.lifting.encoder import FeatureMap
from dinomed3d.lifting.fusion import SelectView, ViewFusion
from dinomed3d.lifting.sample import sample_bilinear

Sample = Callable[[FeatureMap, "int | Tensor", Tensor], Tensor]
"""How maps are read: of which image (or of which for each position), where, (N, C)."""

BYTES_PER_SITE = 160
"""Of what is known of a site in one view while it is projected."""
MAPS_MIB = 64.0
"""Of the maps that are laid out for reading at a time, or one map, whatever its size."""


class Views(Protocol):
    """What a slice stack and a set of posed cameras have in common."""

    def __len__(self) -> int:
        """Number of views."""
        ...

    def project(self, view: int, sites: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of (N, 3) sites: (N, 2) pixels (x, y); (N,) visible; (N,) distance from the view."""
        ...


def lift(
    features: FeatureMap | Iterable[FeatureMap],
    views: Views,
    sites: Tensor,
    *,
    fuse: ViewFusion,
    sample: Sample = sample_bilinear,
    chunk_mib: float = 4.0,
) -> tuple[Tensor, Tensor]:
    """One feature per 3D site, and whether any view saw it.

    Where one view is chosen for each site (a ``SelectView``), the choice comes first and each site is
    sampled once. Without gradients the memory taken beside the arguments is that of the result, 80
    bytes per site, eight times ``chunk_mib`` and twice the greater of one map and 64 MiB, however
    many the views. Where gradients are recorded, nothing is done in chunks.

    Args:
        features: of the V images of the views, in their order: all in one; or one after the other,
            each of one or several images, made or read when their turn comes.
        views: the geometry.
        sites: (N, 3) positions in the coordinates of the views, on the device of the features.
        fuse: how several views become one feature.
        sample: how a map is read.
        chunk_mib: about how much is computed at a time, MiB; what fits into a processor's cache.

    Returns:
        (N, C) features, 0 where unseen; (N,) seen.

    Raises:
        ValueError: not one image per view, maps with different numbers of channels, no map at all,
            or `sites` is not (N, 3).
    """
    if isinstance(features, FeatureMap) and len(views) != features.values.shape[0]:
        raise ValueError(_not_one_each(len(views), features.values.shape[0]))
    if sites.ndim != 2 or sites.shape[1] != 3:
        raise ValueError(f"lift: 'sites' must be (N, 3), got {tuple(sites.shape)}")
    if chunk_mib <= 0:
        raise ValueError(f"lift: 'chunk_mib' must be positive, got {chunk_mib}")
    groups = _groups(features, len(views))
    if isinstance(fuse, SelectView):
        _lift_chosen(groups, views, sites, fuse, sample, int(chunk_mib * 2**20))
    else:
        _lift_all(groups, views, sites, fuse, sample, int(chunk_mib * 2**20))
    return fuse.result()


def _lift_chosen(
    groups: Iterator[tuple[int, FeatureMap]],
    views: Views,
    sites: Tensor,
    fuse: SelectView,
    sample: Sample,
    chunk: int,
) -> None:
    """First a view for each site, then what this view shows there."""
    count = len(sites)
    fuse.begin(count, sites.device)
    chosen = torch.full((count,), -1, device=sites.device)
    at: Tensor | None = None
    for view in reversed(range(len(views))) if fuse.last_wins else range(len(views)):
        for start, part in _parts(sites, chunk // BYTES_PER_SITE):
            number = torch.arange(start, start + len(part), device=sites.device)
            if fuse.last_wins:
                number = number[chosen[start : start + len(part)] < 0]
                part = sites.index_select(0, number)
            uv, visible, distance = views.project(view, part)
            index = torch.nonzero(visible).squeeze(1)
            index = index[fuse.choose(number[index], distance[index])]
            if at is None:
                at = uv.new_zeros(count, 2)
            number = number[index]
            at[number] = uv.index_select(0, index)
            chosen[number] = view
    values: Tensor | None = None
    for first, maps in groups:
        if values is None:
            values = maps.values.new_empty(count, maps.values.shape[1])
            values.index_fill_(0, torch.nonzero(chosen < 0).squeeze(1), 0)
        index = torch.nonzero((chosen >= first) & (chosen < first + len(maps.values))).squeeze(1)
        for part in index.split(_rows(maps.values, chunk)):
            assert at is not None
            values[part] = sample(maps, chosen[part] - first, at.index_select(0, part))
    fuse.values, fuse.seen = values, chosen >= 0


def _lift_all(
    groups: Iterator[tuple[int, FeatureMap]],
    views: Views,
    sites: Tensor,
    fuse: ViewFusion,
    sample: Sample,
    chunk: int,
) -> None:
    """Every view of a group of maps at some sites, then at the next: these stay in the cache."""
    for first, maps in groups:
        if first == 0:
            fuse.start(len(sites), maps.values.shape[1], like=maps.values)
        rows = _rows(maps.values, chunk)
        for start, part in _parts(sites, max(rows, chunk // BYTES_PER_SITE)):
            ends = torch.arange(0, len(part) + rows, rows, device=sites.device)
            found = []
            for view in range(len(maps.values)):
                uv, visible, distance = views.project(first + view, part)
                index = torch.nonzero(visible).squeeze(1)
                cuts = torch.searchsorted(index, ends).tolist()
                found.append((view, index + start, uv[index], distance[index], cuts))
            for number in range(len(ends) - 1):
                for view, index, uv, distance, cuts in found:
                    some = slice(cuts[number], cuts[number + 1])
                    fuse.add(index[some], sample(maps, view, uv[some]), distance[some])


def _groups(
    features: FeatureMap | Iterable[FeatureMap], views: int
) -> Iterator[tuple[int, FeatureMap]]:
    """Maps with the number of their first view, channels last in memory, not too many at a time."""
    first, channels = 0, None
    for given in (features,) if isinstance(features, FeatureMap) else features:
        count, *shape = given.values.shape
        if channels not in (None, shape[0]):
            raise ValueError(
                f"lift: all maps must have as many channels, got {channels} and {shape[0]}"
            )
        channels = shape[0]
        if first + count > views:
            raise ValueError(_not_one_each(views, f"{first + count} or more"))
        each = max(1, given.values[:1].numel() * given.values.element_size())
        for values in given.values.split(max(1, int(MAPS_MIB * 2**20 / each))):
            values = values.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            yield first, replace(given, values=values)
            first += len(values)
    if channels is None:
        raise ValueError("lift: 'features' holds no map")
    if first < views:
        raise ValueError(_not_one_each(views, first))


def _parts(sites: Tensor, rows: int) -> Iterator[tuple[int, Tensor]]:
    rows = max(1, rows)
    for start in range(0, max(1, len(sites)), rows):
        yield start, sites[start : start + rows]


def _rows(values: Tensor, chunk: int) -> int:
    """Sites whose features fit into ``chunk`` bytes; all where gradients are recorded."""
    if torch.is_grad_enabled() and values.requires_grad:
        return 2**31
    return max(1, chunk // max(1, values.shape[1] * values.element_size()))


def _not_one_each(views: int, images: int | str) -> str:
    return f"lift: {views} views but features of {images} images"
