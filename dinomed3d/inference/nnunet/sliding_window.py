"""The sliding window, layer after layer, so that only the logits of one layer are in memory.

Windows are visited by their first axis. Once all windows that begin at one depth are done, no later
window reaches the planes before the next depth: these are finished, yielded, and their memory is used
again. The logits of the whole volume never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import torch
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)
from torch import Tensor

from dinomed3d.inference.case import CaseError

Batch = tuple[Tensor, list[tuple[int, int, int]], tuple[int, int]]
"""Windows (B, C, *patch) with their halo, the position (z, y, x) of each in the volume without it, and the
halo: planes that were added before and after, the same for all windows of a batch."""
CHUNK_LOGITS = 4_000_000
"""About this many logits are yielded at a time."""
CACHED_LOGITS = 1_000_000
"""About this many logits are added at a time: they fit into the cache of a CPU."""


def window_starts(size: int, patch: int, step: float) -> list[int]:
    """Evenly spread starts of windows along one axis; the last window ends at the end.

    Args:
        size: voxels, at least `patch`.
        patch: voxels of a window.
        step: distance between windows as a fraction of the patch, at most; 0 < step <= 1.
    """
    starts: list[int] = compute_steps_for_sliding_window((size,), (patch,), step)[0]
    return starts


@dataclass(frozen=True, kw_only=True)
class WindowGrid:
    """The windows of one volume, in layers along the first axis."""

    size: tuple[int, int, int]
    """Shape of the volume, at least that of the patch."""
    patch: tuple[int, int, int]
    """Shape of a window; of one plane where the network is 2D."""
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    """Starts of the windows along each axis."""
    is_2d: bool
    """Whether the network is 2D, so that windows have no first axis."""
    is_part: bool = False
    """Whether windows are left out, so that some voxels are in none."""

    @classmethod
    def over(cls, size: Sequence[int], patch: Sequence[int], step: float) -> WindowGrid:
        """Cover a volume (Z, Y, X) at least as large as the patch; a patch of two axes is one plane."""
        a, b, c = size
        d, e, f = patch if len(patch) == 3 else (1, *patch)
        starts = [
            tuple(window_starts(n, p, step)) for n, p in zip((a, b, c), (d, e, f), strict=True)
        ]
        if len(patch) == 2:
            starts[0] = tuple(range(a))
        return cls(
            size=(a, b, c),
            patch=(d, e, f),
            starts=(starts[0], starts[1], starts[2]),
            is_2d=len(patch) == 2,
        )

    def within(self, spans: Sequence[tuple[int, int]]) -> WindowGrid:
        """The windows alone that overlap a box, given as [start, stop) along each axis."""
        starts = [
            tuple(s for s in along if s < stop and s + size > start)
            for along, size, (start, stop) in zip(self.starts, self.patch, spans, strict=True)
        ]
        return replace(self, starts=(starts[0], starts[1], starts[2]), is_part=True)

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    def reaching(self, row_range: tuple[int, int]) -> list[int]:
        """Starts along the second axis of the windows that overlap a row range."""
        return [s for s in self.starts[1] if s < row_range[1] and s + self.patch[1] > row_range[0]]

    def count_reaching(self, row_range: tuple[int, int]) -> int:
        """Number of windows that overlap a row range."""
        return len(self.starts[0]) * len(self.reaching(row_range)) * len(self.starts[2])

    @property
    def weights(self) -> Tensor:
        """Weight of each voxel of a window (Z, Y, X) float32: 10 in the centre, never 0.

        Source: Isensee et al. 2021, nnU-Net: Gaussian weighting with sigma = patch / 8.
        """
        shape = self.patch[1:] if self.is_2d else self.patch
        weights = compute_gaussian(shape, value_scaling_factor=10, device=torch.device("cpu"))
        return weights.float().reshape(self.patch)


def round_half(logits: Tensor) -> Tensor:
    """Round to float16, in which nnU-Net keeps logits, so that ties between classes are decided alike."""
    return logits.half().float()


@dataclass(frozen=True, kw_only=True)
class LogitsChunk:
    """Finished logits of some planes of a row range of the network's grid."""

    logits: Tensor
    """(heads, planes, rows, X) float32."""
    first: int
    """Number of the first plane."""


def predict_windows(
    data: Tensor,
    grid: WindowGrid,
    row_range: tuple[int, int],
    predict: Callable[[Iterable[Batch]], Generator[Tensor, None, None]],
    *,
    heads: int,
    batch: int,
    halo: int = 0,
) -> Generator[LogitsChunk, None, None]:
    """Predict all windows that overlap a row range, and yield the logits of its rows.

    Args:
        data: (C, Z, Y, X) of the shape `grid.size`, on any device.
        grid: the windows.
        row_range: rows [start, stop) of the second axis.
        predict: batches -> their logits (B, heads, *patch) float32, in order; it may read ahead.
        heads: channels of the logits.
        batch: windows that go through the network together.
        halo: planes of the volume that windows are given beyond both ends, where it has them.

    Yields:
        Every plane once, in order; the caller may keep the tensors. Where no window is, logits are 0.

    Raises:
        CaseError: logits that are not finite in float16.

    Source: nnunetv2 nnUNetPredictor; it sums in float16, and so does this, in the same order.
    """
    places = [(y, x) for y in grid.reaching(row_range) for x in grid.starts[2]]
    batches = [places[start : start + batch] for start in range(0, len(places), batch)]
    windows = (_cut(data, grid, z, some, halo) for z in grid.starts[0] for some in batches)
    # closed here: what it reads ahead would go on, where predicting is interrupted, as long as the error is looked at
    with closing(predict(windows)) as results:
        yield from _sum_up(results, grid, row_range, batches, heads=heads, device=data.device)


def _sum_up(
    results: Iterator[Tensor],
    grid: WindowGrid,
    row_range: tuple[int, int],
    batches: Sequence[Sequence[tuple[int, int]]],
    *,
    heads: int,
    device: torch.device,
) -> Iterator[LogitsChunk]:
    """Yield planes once all windows that reach them are summed up; the windows' batches are the same at each depth."""
    depth, width, start_row = grid.patch[0], grid.size[2], row_range[0]
    rows = row_range[1] - start_row
    weights = grid.weights.to(device)
    ones = torch.ones_like(weights)[None]
    sums = torch.zeros((heads, depth, rows, width), dtype=torch.half, device=device)
    total = torch.zeros((1, depth, rows, width), dtype=torch.half, device=device)
    ends = [*grid.starts[0][1:], grid.size[0]]
    yield from _empty(range(grid.starts[0][0]), sums)
    for first, end in zip(grid.starts[0], ends, strict=True):
        for some in batches:
            predicted = next(results)
            predicted = predicted.unsqueeze(2) if grid.is_2d else predicted
            for (y, x), logits in zip(some, predicted, strict=True):
                _add(sums, logits, weights, (y - start_row, x))
                _add(total, ones, weights, (y - start_row, x))
            del predicted, logits
        done = min(end - first, depth)
        planes = max(1, CHUNK_LOGITS // (heads * rows * width))
        for begin in range(0, done, planes):
            part = slice(begin, min(begin + planes, done))
            finished = round_half(sums[:, part].float() / total[:, part].float())
            if grid.is_part:
                finished = torch.where(total[:, part] > 0, finished, 0.0)
            if not torch.isfinite(finished).all():
                raise CaseError(
                    "the network's output is not finite or too large for float16; the input may be damaged, or "
                    "the training of the model was not completed"
                )
            yield LogitsChunk(logits=finished, first=first + begin)
        for tensor in (sums, total):
            for plane in range(depth - done):  # plane by plane: no second copy of the sums
                tensor[:, plane] = tensor[:, plane + done]
            tensor[:, depth - done :] = 0
    yield from _empty(range(grid.starts[0][-1] + depth, grid.size[0]), sums)


def _empty(planes: Iterable[int], sums: Tensor) -> Iterator[LogitsChunk]:
    """Planes that no window reaches."""
    for plane in planes:
        logits = torch.zeros((len(sums), 1, *sums.shape[2:]), device=sums.device)
        yield LogitsChunk(logits=logits, first=plane)


def _cut(
    data: Tensor, grid: WindowGrid, z: int, places: Sequence[tuple[int, int]], halo: int
) -> Batch:
    """Cut out the windows of one batch."""
    d, h, w = grid.patch
    numbered = [(z, y, x) for y, x in places]
    if grid.is_2d:
        planes = [data[:, z, y : y + h, x : x + w] for y, x in places]
        return torch.stack(planes), numbered, (0, 0)
    below, above = min(halo, z), min(halo, grid.size[0] - z - d)
    rows = slice(z - below, z + d + above)
    windows = torch.stack([data[:, rows, y : y + h, x : x + w] for y, x in places])
    return windows, numbered, (below, above)


def _add(sums: Tensor, logits: Tensor, weights: Tensor, place: tuple[int, int]) -> None:
    """Add the weighted logits of one window; rows outside the row range are left out.

    Some channels at a time through float32: several times faster on a CPU than mixing precisions.
    """
    y, x = place
    _, height, width = weights.shape
    top, bottom = max(0, -y), min(height, sums.shape[2] - y)
    inside = weights[:, top:bottom]
    target = sums[:, :, y + top : y + bottom, x : x + width]
    step = len(sums) if sums.is_cuda else max(1, CACHED_LOGITS // inside.numel())
    for start in range(0, len(sums), step):
        part = slice(start, start + step)
        target[part] = target[part].float().addcmul_(logits[part, :, top:bottom], inside)
