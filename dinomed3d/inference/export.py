"""From logits on the network's grid to labels on the scan's, slab by slab.

Between grid points logits are interpolated linearly. Where all points around a voxel agree on the
label, every mixture of them has that label too; so only voxels between differing points need the
logits of all classes. The same holds for regions and the side of zero their logits are on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.inference.resample import Resampling, linear, nearest
from dinomed3d.inference.windows import Slab

DENSE = 0.3
"""Share of voxels between differing points from which all are interpolated at once."""
CHUNK = 8_000_000
"""Logits interpolated at once, about."""


@dataclass(frozen=True)
class Taps:
    """For each voxel after: the two before that it lies between, and the weight of the second."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: NDArray[np.float32]

    @classmethod
    def of(cls, size: int, new_size: int, order: int) -> Taps:
        """Along one axis, for splines of order 0 or 1."""
        if order == 0:
            places = nearest(size, new_size)
            return cls(places, places, np.zeros(new_size, np.float32))
        return cls(*linear(size, new_size))


@dataclass(frozen=True)
class Labels:
    """One label per voxel: the class with the largest logit."""

    def key(self, logits: Tensor) -> Tensor:
        """(..., heads) -> (...) what neighbours must share so that all between them is decided."""
        return self.label(logits)

    def label(self, logits: Tensor) -> Tensor:
        """(..., heads) -> (...) int64, the label."""
        return logits.argmax(-1)

    def certainty(self, logits: Tensor) -> Tensor:
        """(heads, N) -> (N,) probability of what was chosen."""
        return torch.softmax(logits, 0).amax(0)


@dataclass(frozen=True)
class Regions:
    """Overlapping regions, each of its own sigmoid; later ones write over earlier ones."""

    order: tuple[int, ...]
    """The label that each region writes."""

    def key(self, logits: Tensor) -> Tensor:
        """(..., heads) -> (...) the side of zero each logit is on, as one number."""
        key = torch.zeros(logits.shape[:-1], dtype=torch.int64)
        for i in range(len(self.order)):
            key = key * 3 % 4611686018427387847 + (logits[..., i] > 0)
        return key

    def label(self, logits: Tensor) -> Tensor:
        """(..., heads) -> (...) int64, the label."""
        label = torch.zeros(logits.shape[:-1], dtype=torch.int64)
        for i, value in enumerate(self.order):
            label[logits[..., i] > 0] = value
        return label

    def certainty(self, logits: Tensor) -> Tensor:
        """(heads, N) -> (N,) probability of the likeliest region."""
        return torch.sigmoid(logits.amax(0))


@dataclass
class Certainty:
    """The mean probability of what was chosen, over the foreground."""

    total: float = 0.0
    count: int = 0

    @property
    def mean(self) -> float | None:
        """In [0, 1], None without foreground."""
        return self.total / self.count if self.count else None


@dataclass
class _Plane:
    """One plane of logits: (h, w, heads), and its keys and labels (h, w)."""

    z: int
    logits: Tensor
    key: NDArray[np.int64]
    label: NDArray[np.int64]


class Exporter:
    """Takes slabs of logits in the order of their planes and writes labels."""

    def __init__(
        self,
        labels: NDArray[np.unsignedinteger],
        resampling: Resampling,
        rows: tuple[int, int],
        decide: Labels | Regions,
        *,
        padding: tuple[int, int, int],
        certainty: Certainty,
        probabilities: Callable[[int, Tensor], None] | None = None,
    ) -> None:
        """Prepare the way from one grid to the other.

        Args:
            labels: (Z', Y', X') the scan's grid, in the network's order of axes; written in place.
            resampling: from the network's grid to it, orders 0 or 1.
            rows: [start, stop) of the second axis of `labels` that this one writes.
            decide: how logits become a label.
            padding: voxels before the volume on the grid that the slabs are of.
            certainty: what is added to, for planes and rows not seen by an earlier band.
            probabilities: also given every plane of the scan's grid: its number, logits (heads, rows, X').
        """
        axes = zip(resampling.shape, resampling.new_shape, resampling.orders, strict=True)
        self.taps = [Taps.of(*axis) for axis in axes]
        y = self.taps[1]
        first, second, weight = (v[slice(*rows)] for v in (y.first, y.second, y.weight))
        self.low, self.high = int(first.min()), int(second.max()) + 1
        self.own = Taps(first - self.low, second - self.low, weight)
        self.new = 0 if rows[0] == 0 else int(y.second[rows[0] - 1]) + 1 - self.low
        self.labels = labels[:, slice(*rows)]
        self.size = resampling.shape
        self.padding = padding
        self.decide = decide
        self.certainty = certainty
        self.probabilities = probabilities
        self.before: _Plane | None = None
        self.next = 0

    @property
    def band(self) -> tuple[int, int]:
        """Rows of the padded network grid that are needed."""
        return self.low + self.padding[1], self.high + self.padding[1]

    def add(self, slab: Slab) -> None:
        """Take the next planes and write every plane of labels that they complete."""
        left = self.padding[2]
        logits = slab.logits[..., left : left + self.size[2]]
        for number in range(logits.shape[1]):
            z = slab.first + number - self.padding[0]
            if 0 <= z < self.size[0]:
                self._plane(z, logits[:, number].float())

    def _plane(self, z: int, logits: Tensor) -> None:
        """(heads, h, w) of plane z of the network's grid."""
        values = logits.permute(1, 2, 0).contiguous().cpu()
        label = self.decide.label(values)
        plane = _Plane(z, values, self.decide.key(values).numpy(), label.numpy())
        new = logits[:, self.new :].flatten(1)[
            :, (label[self.new :] > 0).flatten().to(logits.device)
        ]
        self.certainty.total += self.decide.certainty(new).sum().item()
        self.certainty.count += new.shape[1]
        depth = self.taps[0]
        while self.next < len(depth.first) and depth.second[self.next] <= z:
            one = plane if depth.first[self.next] == z else self.before
            assert one is not None
            self._write(self.next, one, plane, float(depth.weight[self.next]))
            self.next += 1
        self.before = plane

    def _write(self, number: int, one: _Plane, two: _Plane, weight: float) -> None:
        """Write plane `number` of the labels, between two planes of logits."""
        logits = one.logits if weight == 0 else torch.lerp(one.logits, two.logits, weight)
        agree = np.ones(one.key.shape, bool) if weight == 0 else one.key == two.key
        target = self.labels[number]
        y, x = self.own, self.taps[2]
        if y.weight.any() or x.weight.any():
            agree[:, :-1] &= agree[:, 1:] & (one.key[:, :-1] == one.key[:, 1:])
            agree[:-1] &= agree[1:] & (one.key[:-1] == one.key[1:])
        target[...] = one.label[y.first][:, x.first]
        rows, columns = np.nonzero(~agree[y.first][:, x.first])
        if self.probabilities is not None or len(rows) > DENSE * target.size:
            self._write_all(number, logits)
            return
        step = max(1, CHUNK // logits.shape[-1])
        for start in range(0, len(rows), step):
            r, c = rows[start : start + step], columns[start : start + step]
            part = torch.from_numpy(y.weight[r])[:, None], torch.from_numpy(x.weight[c])[:, None]
            corners = [
                logits[torch.from_numpy(ys[r]), torch.from_numpy(xs[c])]
                for ys in (y.first, y.second)
                for xs in (x.first, x.second)
            ]
            top = torch.lerp(corners[0], corners[1], part[1])
            bottom = torch.lerp(corners[2], corners[3], part[1])
            target[r, c] = self.decide.label(torch.lerp(top, bottom, part[0])).numpy()

    def _write_all(self, number: int, logits: Tensor) -> None:
        """Write plane `number` from logits (h, w, heads), interpolated everywhere, some rows at a time."""
        y, x = self.own, self.taps[2]
        height, width = self.labels.shape[1:]
        across = torch.from_numpy(x.weight)[:, None]
        down = torch.from_numpy(y.weight)[:, None, None]
        step = max(1, CHUNK // (width * logits.shape[-1]))
        fine = []
        for start in range(0, height, step):
            part = slice(start, start + step)
            row = torch.lerp(logits[y.first[part]], logits[y.second[part]], down[part])
            values = torch.lerp(row[:, x.first], row[:, x.second], across)
            self.labels[number, part] = self.decide.label(values).numpy()
            if self.probabilities is not None:
                fine.append(values)
        if self.probabilities is not None:
            self.probabilities(number, torch.cat(fine).permute(2, 0, 1))
