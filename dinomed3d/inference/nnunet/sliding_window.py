"""The sliding window, one layer of windows after the other, so that only a layer's logits are held.

Windows are visited by their first axis. Once all windows that begin at one depth are done, no later
one touches the planes above the next depth: those are finished, handed on, and their memory is used
again. The logits of the whole volume never exist.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from dinomed3d.inference.case import CaseError

Batch = tuple[Tensor, list[tuple[int, int, int]]]
"""Windows (B, C, *patch), and where in the volume each begins."""
SLAB_LOGITS = 4_000_000
"""Logits handed on at once, about."""
CHUNK = 1_000_000
"""Logits added at once, about: what a CPU's cache holds."""


def window_starts(size: int, patch: int, step: float) -> list[int]:
    """Where windows begin along one axis.

    Args:
        size: voxels, at least `patch`.
        patch: voxels of a window.
        step: at most this share of a patch from one to the next, 0 < step <= 1.

    Returns:
        Evenly spread starts; the last window ends at the end.

    Source: Isensee 2021, nnU-Net, "patch-based inference"; nnunetv2 compute_steps_for_sliding_window.
    """
    count = int(np.ceil((size - patch) / (patch * step))) + 1
    if count == 1:
        return [0]
    distance = (size - patch) / (count - 1)
    return [int(np.round(distance * i)) for i in range(count)]


@lru_cache(maxsize=2)
def gaussian(patch: tuple[int, ...]) -> Tensor:
    """The weight of each voxel of a window: 10 in the middle, falling with sigma = patch / 8.

    Returns:
        Of the patch's shape, float16; nowhere 0.

    Source: nnunetv2 compute_gaussian.
    """
    peak = np.zeros(patch)
    peak[tuple(n // 2 for n in patch)] = 1
    weights = ndimage.gaussian_filter(peak, [n / 8 for n in patch], mode="constant")
    weights = torch.from_numpy(weights / (weights.max() / 10)).half()
    weights[weights == 0] = weights[weights > 0].min()
    return weights


@dataclass(frozen=True, kw_only=True)
class WindowGrid:
    """The windows over one volume, in layers along the first axis."""

    size: tuple[int, int, int]
    """Of the volume, padded to a patch at least."""
    patch: tuple[int, int, int]
    """Of a window; one plane deep where slices are predicted one by one."""
    starts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
    flat: bool
    """Windows are single slices without a depth of their own."""

    @classmethod
    def over(cls, size: Sequence[int], patch: Sequence[int], step: float) -> WindowGrid:
        """Cover a volume (Z, Y, X), at least as large as the patch; a patch of two axes is one plane."""
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
            flat=len(patch) == 2,
        )

    @property
    def count(self) -> int:
        """Number of windows."""
        return len(self.starts[0]) * len(self.starts[1]) * len(self.starts[2])

    def touching(self, band: tuple[int, int]) -> list[int]:
        """The starts along the second axis of the windows that reach into a band."""
        return [s for s in self.starts[1] if s < band[1] and s + self.patch[1] > band[0]]


def round_half(logits: Tensor) -> Tensor:
    """To float16 and back, as nnU-Net holds logits: it settles ties between classes as nnU-Net does."""
    return logits.half().float()


@dataclass(frozen=True, kw_only=True)
class LogitsChunk:
    """Finished logits: planes [first, first + k) of a band of the network's grid."""

    logits: Tensor
    """(heads, k, rows, X) float32."""
    first: int
    band: tuple[int, int]
    """Rows [start, stop) of the second axis."""


def sweep(
    data: Tensor,
    layers: WindowGrid,
    band: tuple[int, int],
    stream: Callable[[Iterable[Batch]], Iterator[Tensor]],
    *,
    heads: int,
    batch: int,
) -> Iterator[LogitsChunk]:
    """Predict all windows that touch a band and give the band's logits, plane after plane.

    Args:
        data: (C, Z, Y, X), of `layers.size`, on any device.
        layers: the windows.
        band: rows [start, stop) of the second axis.
        stream: batches -> their logits (B, heads, *patch) float32, in order; may take batches ahead.
        heads: channels of the logits.
        batch: windows that go through the network together.

    Yields:
        Slabs in the order of planes, none left out, each plane once; their memory is theirs.

    Raises:
        CaseError: logits that are not numbers, or too large for float16.

    Source: nnunetv2 nnUNetPredictor; sums in float16 there, and so here, in the same order.
    """
    depth = layers.patch[0]
    rows = band[1] - band[0]
    flat = layers.flat
    weights = gaussian(layers.patch[1:] if flat else layers.patch).float().to(data.device)
    weights = weights.reshape(layers.patch)
    held = torch.zeros((heads, depth, rows, layers.size[2]), dtype=torch.half, device=data.device)
    total = torch.zeros((1, depth, rows, layers.size[2]), dtype=torch.half, device=data.device)
    own = weights.new_ones((1, *layers.patch))
    firsts = [*layers.starts[0], layers.size[0]]
    places = [(y, x) for y in layers.touching(band) for x in layers.starts[2]]
    chunks = [places[start : start + batch] for start in range(0, len(places), batch)]
    jobs = ((z, chunk) for z in layers.starts[0] for chunk in chunks)
    results = stream(_batch(data, layers, z, chunk) for z, chunk in jobs)
    for first, following in zip(firsts[:-1], firsts[1:], strict=True):
        for chunk in chunks:
            predicted = next(results)
            predicted = predicted.unsqueeze(2) if layers.flat else predicted
            for (y, x), logits in zip(chunk, predicted, strict=True):
                _add(held, logits, weights, (y - band[0], x))
                _add(total, own, weights, (y - band[0], x))
            del predicted, logits
        done = min(following - first, depth)
        planes = max(1, SLAB_LOGITS // (heads * rows * layers.size[2]))
        for begin in range(0, done, planes):
            part = slice(begin, min(begin + planes, done))
            finished = round_half(held[:, part].float() / total[:, part].float())
            if not torch.isfinite(finished).all():
                raise CaseError(
                    "the network's output is not finite or larger than float16 can hold; the input may be "
                    "damaged, or the model was not trained to its end"
                )
            yield LogitsChunk(logits=finished, first=first + begin, band=band)
        for sums in (held, total):
            for plane in range(depth - done):  # plane by plane: no second copy of the sums
                sums[:, plane] = sums[:, plane + done]
            sums[:, depth - done :] = 0


def _batch(data: Tensor, layers: WindowGrid, z: int, places: Sequence[tuple[int, int]]) -> Batch:
    """Cut windows out."""
    d, h, w = layers.patch
    windows = torch.stack([data[:, z : z + d, y : y + h, x : x + w] for y, x in places])
    return (windows.squeeze(2) if layers.flat else windows), [(z, y, x) for y, x in places]


def _add(sums: Tensor, logits: Tensor, weights: Tensor, place: tuple[int, int]) -> None:
    """Add one window's weighted logits where it lies; what is outside the band is left out.

    Some channels at a time through float32: several times faster on a CPU than mixing precisions.
    """
    y, x = place
    _, height, width = weights.shape
    top, bottom = max(0, -y), min(height, sums.shape[2] - y)
    own = weights[:, top:bottom]
    target = sums[:, :, y + top : y + bottom, x : x + width]
    step = len(sums) if sums.is_cuda else max(1, CHUNK // own.numel())
    for start in range(0, len(sums), step):
        part = slice(start, start + step)
        target[part] = target[part].float().addcmul_(logits[part, :, top:bottom], own)
