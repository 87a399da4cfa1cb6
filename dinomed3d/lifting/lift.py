"""The path through the core: encode -> project -> sample -> fuse."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from dinomed3d.lifting import on_devices
from dinomed3d.lifting.encoder import FeatureMap
from dinomed3d.lifting.fusion import Last, Mean, SelectView, ViewFusion
from dinomed3d.lifting.one_pass import add_views, copies_cells, copy_cells, in_one_pass
from dinomed3d.lifting.sample import sample_bilinear

Sample = Callable[[FeatureMap, "int | Tensor", Tensor], Tensor]
"""Reads maps at (N, 2) pixels of one view, or of a view for each position: (N, C)."""

BYTES_PER_POINT = 160
"""Intermediate results of projecting one point into one view."""
CHUNK_MIB = 4.0
"""What a CPU computes at a time."""
_PROJECTED_CHUNKS = 4
"""Chunks of intermediate results of projecting that a CPU holds: enough points for all its threads."""
MAPS_MIB = 64.0
"""Maps that are laid out for reading at a time on a CPU; at least one map, whatever its size."""


class Projector(Protocol):
    """The geometry of V views: a stack of slices (`SliceStack`) or posed cameras (`Cameras`)."""

    def __len__(self) -> int:
        """Number of views, V."""
        ...

    def project(self, view: int, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(N, 3) points -> (N, 2) pixels (x, y); (N,) visible; (N,) distance from the view."""
        ...


def lift(
    features: FeatureMap | Iterable[FeatureMap],
    projector: Projector,
    points: Tensor,
    *,
    fuse: ViewFusion,
    sample: Sample = sample_bilinear,
    chunk_mib: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One feature per 3D point: project the points into every view, then sample and fuse.

    If the fusion selects one view per point (a ``SelectView``), views are selected first and each
    point is sampled once. Without gradients the memory needed in addition to the arguments is that of the
    result, 80 bytes per point, eight times ``chunk_mib`` and twice the greater of one map and 64 MiB,
    on devices 1 GiB, independent of the number of views. Where gradients are recorded, nothing is done in chunks.

    Args:
        features: of the V images, in the order of the views: all in one FeatureMap, or an iterable of
            FeatureMaps of one or several images each, which may be computed or read on demand.
        projector: the geometry.
        points: (N, 3) in the coordinates of the projector, on the device of the features.
        fuse: how the features of several views become one.
        sample: how a map is read.
        chunk_mib: roughly how much is computed at a time, MiB. None: 4 on a CPU, which fits into its cache, and
            256 elsewhere.

    Returns:
        (N, C) features, 0 where no view sees the point; (N,) whether any view does.

    Raises:
        ValueError: not one image per view, maps with different numbers of channels, no map at all,
            or `points` is not (N, 3).
    """
    if points.ndim != 2 or points.shape[1] != 3:
        raise ValueError(f"lift: 'points' must be (N, 3), got {tuple(points.shape)}")

    def project(view: int, rows: slice | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        some = points[rows] if isinstance(rows, slice) else points.index_select(0, rows)
        return projector.project(view, some)

    pixels = _Pixels(len(projector), len(points), points.device, project)
    return _sample_and_fuse(features, pixels, fuse, sample, chunk_mib)


def sample_and_fuse(
    features: FeatureMap | Iterable[FeatureMap],
    uv: Tensor,
    visible: Tensor,
    *,
    fuse: ViewFusion,
    distance: Tensor | None = None,
    sample: Sample = sample_bilinear,
    chunk_mib: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One feature per 3D point whose pixels are known already; what `lift` does after projection.

    Args:
        features: as in `lift`.
        uv: (N, V, 2) pixels (x, y) of each point in each view.
        visible: (N, V) whether a view sees a point; pixels are read only there.
        fuse: how the features of several views become one.
        distance: (N, V) of the points from the views; None if the fusion does not use it.
        sample: how a map is read.
        chunk_mib: as in `lift`.

    Returns:
        (N, C) features, 0 where no view sees the point; (N,) whether any view does.

    Raises:
        ValueError: as in `lift`, or `uv`, `visible` and `distance` do not belong together.
    """
    count, views = visible.shape
    if uv.shape != (count, views, 2) or (distance is not None and distance.shape != visible.shape):
        raise ValueError(
            f"sample_and_fuse: 'uv' must be (N, V, 2), 'visible' and 'distance' (N, V), got "
            f"{tuple(uv.shape)}, {tuple(visible.shape)}"
            + (f" and {tuple(distance.shape)}" if distance is not None else "")
        )

    def look_up(view: int, rows: slice | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        some = visible[rows, view]
        away = uv.new_zeros(1).expand(len(some)) if distance is None else distance[rows, view]
        return uv[rows, view], some, away

    pixels = _Pixels(views, count, visible.device, look_up)
    return _sample_and_fuse(features, pixels, fuse, sample, chunk_mib)


def sample_chosen(
    features: FeatureMap | Iterable[FeatureMap],
    view: Tensor,
    uv: Tensor,
    *,
    sample: Sample = sample_bilinear,
    chunk_mib: float | None = None,
) -> tuple[Tensor, Tensor]:
    """One feature per 3D point whose view is chosen already: one gather, the last part of `lift`.

    Args:
        features: of V images, as in `lift`.
        view: (N,) the image that each point is read from, 0 to V - 1; below 0: none.
        uv: (N, 2) pixels (x, y) of each point in its image.
        sample: how a map is read.
        chunk_mib: as in `lift`.

    Returns:
        (N, C) features, 0 where there is no view; (N,) whether there is one.

    Raises:
        ValueError: `uv` does not belong to `view`; a view without a map; no map, or maps with different
            numbers of channels.
    """
    if view.ndim != 1 or uv.shape != (len(view), 2):
        raise ValueError(
            f"sample_chosen: 'view' must be (N,) and 'uv' (N, 2), got {tuple(view.shape)} and "
            f"{tuple(uv.shape)}"
        )
    chosen = _Chosen(view.long(), uv)
    chunk = _chunk(chunk_mib, uv.device)
    groups = _groups((features,) if isinstance(features, FeatureMap) else features, None)
    return _sample_chosen(groups, chosen, sample, chunk), view >= 0


@dataclass(frozen=True)
class _Chosen:
    """The view that each of N points is read from."""

    view: Tensor
    """(N,) int64, -1 where no view sees the point."""
    uv: Tensor
    """(N, 2) pixels in that view."""


@dataclass(frozen=True)
class _Pixels:
    """Where N points lie in V views, computed for some of the points at a time."""

    views: int
    points: int
    device: torch.device
    of: Callable[[int, slice | Tensor], tuple[Tensor, Tensor, Tensor]]
    """(view, n rows) -> (n, 2) pixels; (n,) visible; (n,) distance."""

    def chunks(self, rows: int) -> Iterator[slice]:
        rows = max(1, rows)
        for start in range(0, max(1, self.points), rows):
            yield slice(start, min(start + rows, self.points))


def _sample_and_fuse(
    features: FeatureMap | Iterable[FeatureMap],
    pixels: _Pixels,
    fuse: ViewFusion,
    sample: Sample,
    chunk_mib: float | None,
) -> tuple[Tensor, Tensor]:
    if isinstance(features, FeatureMap):
        if pixels.views != features.values.shape[0]:
            raise ValueError(_not_one_each(pixels.views, features.values.shape[0]))
        features = (features,)
    groups, chunk = _groups(features, pixels.views), _chunk(chunk_mib, pixels.device)
    if isinstance(fuse, SelectView):
        chosen = _choose(pixels, fuse, chunk)
        fuse.values = _sample_chosen(groups, chosen, sample, chunk)
        fuse.seen = chosen.view >= 0
    else:
        _sample_all(groups, pixels, fuse, sample, chunk)
    return fuse.result()


def _chunk(chunk_mib: float | None, device: torch.device) -> int:
    """Bytes that are computed at a time."""
    if chunk_mib is None:
        chunk_mib = CHUNK_MIB if on_devices.is_cpu(device) else on_devices.CHUNK_MIB
    if chunk_mib <= 0:
        raise ValueError(f"lift: 'chunk_mib' must be positive, got {chunk_mib}")
    return int(chunk_mib * 2**20)


def _choose(pixels: _Pixels, fuse: SelectView, chunk: int) -> _Chosen:
    """The view that a fusion selects for each point."""
    count, device = pixels.points, pixels.device
    fuse.reset(count, device)
    selected = torch.full((count,), -1, device=device)
    at: Tensor | None = None
    if type(fuse) is Last and count and not on_devices.is_cpu(device):
        parts = [
            on_devices.choose_last(partial(_view_of, pixels, 0, rows), pixels.views, selected[rows])
            for rows in pixels.chunks(chunk // BYTES_PER_POINT)
        ]
        if parts[0][1] is not None:
            selected = torch.cat([chosen for chosen, _ in parts])
            at = torch.cat([uv for _, uv in parts if uv is not None])
            return _Chosen(selected, at)
    held = _PROJECTED_CHUNKS * chunk if on_devices.is_cpu(device) else chunk
    for view in reversed(range(pixels.views)) if fuse.last_wins else range(pixels.views):
        for rows in pixels.chunks(held // BYTES_PER_POINT):
            number = torch.arange(rows.start, rows.stop, device=device)
            if fuse.last_wins:
                number = number[selected[rows] < 0]
            uv, visible, distance = pixels.of(view, number if fuse.last_wins else rows)
            index = torch.nonzero(visible).squeeze(1)
            index = index[fuse.update(number[index], distance[index])]
            if at is None:
                at = uv.new_zeros(count, 2)
            number = number[index]
            at[number] = uv.index_select(0, index)
            selected[number] = view
    return _Chosen(selected, torch.zeros(count, 2, device=device) if at is None else at)


def _sample_chosen(
    groups: Iterator[tuple[int, FeatureMap]], chosen: _Chosen, sample: Sample, chunk: int
) -> Tensor:
    """(N, C) of the chosen views, each point read once; 0 where there is none."""
    view, end = chosen.view, 0
    last = int(view.max()) if len(view) else -1
    values: Tensor | None = None
    for first, maps in groups:
        if values is None:
            values = maps.values.new_empty(len(view), maps.values.shape[1])
            if last < len(maps.values) and copies_cells(sample, maps.values):
                step = on_devices.rows_at_once(maps.values, chunk)
                copy_cells(values, maps, view, chosen.uv, step)
                end = len(maps.values)
                continue
            values.index_fill_(0, torch.nonzero(view < 0).squeeze(1), 0)
        if first == 0 and len(view) and not on_devices.is_cpu(view.device):
            if last < len(maps.values):  # all are read here: which ones need not be asked
                values = on_devices.sample_every(maps, view, chosen.uv, sample=sample, chunk=chunk)
                end = len(maps.values)
                continue
        index = torch.nonzero((view >= first) & (view < first + len(maps.values)))
        for part in index.squeeze(1).split(on_devices.rows_at_once(maps.values, chunk)):
            at = chosen.uv.index_select(0, part)
            values[part] = sample(maps, view[part] - first, at)
        end = first + len(maps.values)
    assert values is not None  # _groups gives a map or raises
    if last >= end:
        raise ValueError(f"lift: a point is read from view {last}, but there are {end} images")
    return values


def _sample_all(
    groups: Iterator[tuple[int, FeatureMap]],
    pixels: _Pixels,
    fuse: ViewFusion,
    sample: Sample,
    chunk: int,
) -> None:
    """All views of a group for some points, then for the next points: these stay in the cache."""
    for first, maps in groups:
        step, views = on_devices.rows_at_once(maps.values, chunk), len(maps.values)
        if isinstance(fuse, Mean) and in_one_pass(fuse, sample, maps.values) and views:
            if first == 0:
                fuse.start_unwritten(pixels.points, maps.values.shape[1], like=maps.values)
            most = _PROJECTED_CHUNKS * chunk // BYTES_PER_POINT
            for rows in pixels.chunks(min(most, chunk // (8 * views))):
                project = partial(_view_of, pixels, first, rows)
                add_views(fuse, sample, maps, project, rows, step, first=first == 0)
            continue
        if first == 0:
            fuse.start(pixels.points, maps.values.shape[1], like=maps.values)
        if not on_devices.is_cpu(maps.values.device):
            for rows in pixels.chunks(on_devices.rows_of_views(maps, chunk)):
                project = partial(_view_of, pixels, first, rows)
                on_devices.add_every_view(fuse, sample, maps, project, rows.start)
            continue
        for rows in pixels.chunks(max(step, chunk // BYTES_PER_POINT)):
            ends = torch.arange(0, rows.stop - rows.start + step, step, device=pixels.device)
            found = []
            for view in range(len(maps.values)):
                uv, visible, distance = pixels.of(first + view, rows)
                index = torch.nonzero(visible).squeeze(1)
                cuts = torch.searchsorted(index, ends).tolist()
                found.append((view, index + rows.start, uv[index], distance[index], cuts))
            for number in range(len(ends) - 1):
                for view, index, uv, distance, cuts in found:
                    some = slice(cuts[number], cuts[number + 1])
                    fuse.add(index[some], sample(maps, view, uv[some]), distance[some])


def _view_of(pixels: _Pixels, first: int, rows: slice, view: int) -> tuple[Tensor, Tensor, Tensor]:
    return pixels.of(first + view, rows)


def _groups(features: Iterable[FeatureMap], views: int | None) -> Iterator[tuple[int, FeatureMap]]:
    """Maps with the number of their first view, channels last in memory, at most MAPS_MIB each.

    With ``views`` there must be as many.
    """
    first, channels = 0, None
    for given in features:
        count, *shape = given.values.shape
        if channels not in (None, shape[0]):
            raise ValueError(
                f"lift: all maps must have the same channels, got {channels} and {shape[0]}"
            )
        channels = shape[0]
        if views is not None and first + count > views:
            raise ValueError(_not_one_each(views, f"{first + count} or more"))
        held = MAPS_MIB if on_devices.is_cpu(given.values.device) else on_devices.MAPS_MIB
        each = max(1, given.values[:1].numel() * given.values.element_size())
        for values in given.values.split(max(1, int(held * 2**20 / each))):
            values = values.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
            yield first, replace(given, values=values)
            first += len(values)
    if channels is None:
        raise ValueError("lift: 'features' holds no map")
    if views is not None and first < views:
        raise ValueError(_not_one_each(views, first))


def _not_one_each(views: int, images: int | str) -> str:
    return f"lift: {views} views but features of {images} images"
