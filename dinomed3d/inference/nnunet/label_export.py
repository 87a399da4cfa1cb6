"""From logits on the network's grid to labels on the grid of the scan, chunk by chunk.

Logits are interpolated linearly between grid points. Where all grid points around a voxel have the same
label, every interpolation of them has it too, so only voxels between different labels need the logits
of all classes. The same is true for regions and the sign of their logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from dinomed3d.inference.nnunet.resample import Resampling, linear, nearest
from dinomed3d.inference.nnunet.sliding_window import LogitsChunk, round_half

DENSE = 0.3
"""Fraction of voxels between different labels above which all voxels are interpolated."""
CHUNK = 8_000_000
"""About this many logits are interpolated at a time."""


@dataclass(frozen=True)
class AxisInterpolation:
    """For each output voxel: the two input voxels around it, and the weight of the second."""

    first: Tensor
    """Number of the first input voxel."""
    second: Tensor
    """Number of the second input voxel."""
    weight: Tensor
    """Weight of the second, in [0, 1)."""

    @classmethod
    def of(cls, size: int, new_size: int, order: int, device: torch.device) -> AxisInterpolation:
        """For one axis, by splines of order 0 or 1."""
        if order == 0:
            places = torch.from_numpy(nearest(size, new_size)).to(device)
            return cls(places, places, torch.zeros(new_size, device=device))
        return cls(*(torch.from_numpy(values).to(device) for values in linear(size, new_size)))


@dataclass(frozen=True)
class Labels:
    """One label per voxel: the class with the largest logit."""

    def key(self, logits: Tensor) -> Tensor:
        """(..., heads) -> (...) value that neighbours must share to decide all voxels between them."""
        return self.label(logits)

    def label(self, logits: Tensor) -> Tensor:
        """(..., heads) -> (...) int64, the label."""
        return logits.argmax(-1)

    def certainty(self, logits: Tensor) -> Tensor:
        """(N, heads) -> (N,) probability of the label."""
        return torch.softmax(logits, -1).amax(-1)


@dataclass(frozen=True)
class Regions:
    """Overlapping regions, each with its own sigmoid; later ones overwrite earlier ones."""

    order: tuple[int, ...]
    """The label that each region writes."""

    def key(self, logits: Tensor) -> Tensor:
        """(..., heads) -> (...) the signs of all logits, as one number."""
        bits = 2 ** torch.arange(len(self.order), device=logits.device)
        return ((logits > 0) * bits).sum(-1)

    def label(self, logits: Tensor) -> Tensor:
        """(..., heads) -> (...) int64, the label."""
        label = torch.zeros(logits.shape[:-1], dtype=torch.int64, device=logits.device)
        for i, value in enumerate(self.order):
            label[logits[..., i] > 0] = value
        return label

    def certainty(self, logits: Tensor) -> Tensor:
        """(N, heads) -> (N,) probability of the most likely region."""
        return torch.sigmoid(logits.amax(-1))


@dataclass
class Certainty:
    """Running mean of the probability of the label, over the foreground."""

    total: float | Tensor = 0.0
    """Sum; on devices a tensor, which nothing waits for until the mean is read."""
    count: int | Tensor = 0

    @property
    def mean(self) -> float | None:
        """In [0, 1], None without foreground."""
        count = int(self.count)
        return float(self.total) / count if count else None

    def add(self, probability: Tensor, inside: Tensor | None = None) -> None:
        """Add the probabilities of some voxels, or of those that lie inside, without waiting for them."""
        if inside is None:
            self.total += probability.sum().item()
            self.count += len(probability)
        else:
            # not by a product, which would keep what is not a number
            self.total = self.total + torch.where(inside, probability, 0.0).sum()
            self.count = self.count + inside.sum()


@dataclass(frozen=True)
class _Plane:
    """Plane z of the network's grid: logits (h, w, heads), keys and labels (h, w)."""

    z: int
    logits: Tensor
    key: Tensor
    label: Tensor


class Exporter:
    """Receives logits in the order of their planes and writes labels."""

    def __init__(
        self,
        labels: NDArray[Any],
        resampling: Resampling,
        rows: tuple[int, int],
        decide: Labels | Regions,
        *,
        padding: tuple[int, int, int],
        certainty: Certainty,
        device: torch.device,
        probabilities: Callable[[int, Tensor], None] | None = None,
    ) -> None:
        """Prepare the interpolation from one grid to the other.

        Args:
            labels: (Z', Y', X') on the grid of the scan, in the network's order of axes; written in place.
            resampling: from the network's grid to it, orders 0 or 1.
            rows: [start, stop) of the second axis of `labels` to write.
            decide: how logits become a label.
            padding: voxels before the volume on the padded grid of the logits.
            certainty: updated with the rows that no earlier row range had.
            device: of the logits.
            probabilities: receives every plane of these rows: its number, logits (heads, rows, X').
        """
        axes = zip(resampling.shape, resampling.new_shape, resampling.orders, strict=True)
        self.depth, y, self.across = (AxisInterpolation.of(*axis, device) for axis in axes)
        first, second, weight = (values[slice(*rows)] for values in (y.first, y.second, y.weight))
        self.low, self.high = int(first.min()), int(second.max()) + 1
        self.down = AxisInterpolation(first - self.low, second - self.low, weight)
        self.new = 0 if rows[0] == 0 else int(y.second[rows[0] - 1]) + 1 - self.low
        self.labels = labels[:, slice(*rows)]
        self.size = resampling.shape
        self.padding = padding
        self.decide = decide
        self.certainty = certainty
        self.probabilities = probabilities
        self.before: _Plane | None = None
        self.next = 0
        self.on_device = device.type != "cpu"
        self.waiting: list[tuple[int, slice, Tensor]] = []
        """Plane, rows and labels that are still on the device."""
        # as Python numbers: read for every plane
        depth = self.depth
        self.depths = [v.tolist() for v in (depth.first, depth.second, depth.weight)]
        self.inside = not (weight.any() or self.across.weight.any())

    @property
    def row_range(self) -> tuple[int, int]:
        """Rows of the padded network grid that are needed."""
        return self.low + self.padding[1], self.high + self.padding[1]

    def add(self, chunk: LogitsChunk) -> None:
        """Receive the next planes and write every plane of labels that they complete."""
        left = self.padding[2]
        for number in range(chunk.logits.shape[1]):
            z = chunk.first + number - self.padding[0]
            if 0 <= z < self.size[0]:
                logits = chunk.logits[:, number, :, left : left + self.size[2]]
                self._plane(z, logits.permute(1, 2, 0).contiguous())
        self._fetch()

    def _fetch(self) -> None:
        """Write the labels that are on the device: the host waits once for all planes of a chunk."""
        if not self.waiting:
            return
        fetched = torch.cat([labels.flatten() for _, _, labels in self.waiting]).cpu()
        sizes = [labels.numel() for _, _, labels in self.waiting]
        for (number, rows, labels), part in zip(self.waiting, fetched.split(sizes), strict=True):
            self.labels[number, rows] = part.view(labels.shape).numpy()
        self.waiting.clear()

    def _plane(self, z: int, logits: Tensor) -> None:
        """Process plane z of the network's grid, logits (h, w, heads)."""
        label = self.decide.label(logits)
        key = label if isinstance(self.decide, Labels) else self.decide.key(logits)
        plane = _Plane(z, logits, key, label)
        new, foreground = logits[self.new :], label[self.new :] > 0
        if self.on_device:  # selecting voxels would make the host wait for their number
            probability = self.decide.certainty(new.flatten(0, 1))
            self.certainty.add(probability, foreground.flatten())
        else:
            self.certainty.add(self.decide.certainty(new[foreground]))
        first, second, weight = self.depths
        while self.next < len(first) and second[self.next] <= z:
            one = plane if first[self.next] == z else self.before
            assert one is not None
            self._write(self.next, one, plane, weight[self.next])
            self.next += 1
        self.before = plane

    def _write(self, number: int, one: _Plane, two: _Plane, weight: float) -> None:
        """Write plane `number` of the labels, between two planes of logits."""
        logits = one.logits if weight == 0 else torch.lerp(one.logits, two.logits, weight)
        if self.probabilities is not None or self.on_device:
            self._write_all(number, logits)
            return
        agree = torch.ones_like(one.key, dtype=torch.bool) if weight == 0 else one.key == two.key
        if not self.inside:
            agree[:, :-1] &= agree[:, 1:] & (one.key[:, :-1] == one.key[:, 1:])
            agree[:-1] &= agree[1:] & (one.key[:-1] == one.key[1:])
        y, x = self.down, self.across
        # int16 first: a quarter of the memory
        narrow = one.label.to(torch.int16)
        target = narrow[y.first][:, x.first].numpy().astype(self.labels.dtype)
        rows, columns = torch.nonzero(~agree[y.first][:, x.first], as_tuple=True)
        if len(rows) > DENSE * target.size:
            self._write_all(number, logits)
            return
        step = max(1, CHUNK // logits.shape[-1])
        for start in range(0, len(rows), step):
            r, c = rows[start : start + step], columns[start : start + step]
            down, across = y.weight[r][:, None], x.weight[c][:, None]
            top = torch.lerp(
                logits[y.first[r], x.first[c]], logits[y.first[r], x.second[c]], across
            )
            bottom = torch.lerp(
                logits[y.second[r], x.first[c]], logits[y.second[r], x.second[c]], across
            )
            values = round_half(torch.lerp(top, bottom, down))
            target[r.numpy(), c.numpy()] = self.decide.label(values).numpy()
        self.labels[number] = target

    def _write_all(self, number: int, logits: Tensor) -> None:
        """Write plane `number` from logits (h, w, heads), all interpolated, some rows at a time."""
        y, x = self.down, self.across
        height, width = self.labels.shape[1:]
        step = max(1, CHUNK // (width * logits.shape[-1]))
        fine = []
        for start in range(0, height, step):
            part = slice(start, start + step)
            down = y.weight[part, None, None]
            row = torch.lerp(logits[y.first[part]], logits[y.second[part]], down)
            values = round_half(torch.lerp(row[:, x.first], row[:, x.second], x.weight[:, None]))
            label = self.decide.label(values)
            if self.on_device:  # in the fewest bytes that hold every label
                narrow = torch.uint8 if self.labels.itemsize == 1 else torch.int32
                self.waiting.append((number, part, label.to(narrow)))
            else:
                self.labels[number, part] = label.numpy()
            if self.probabilities is not None:
                fine.append(values)
        if self.probabilities is not None:
            self.probabilities(number, torch.cat(fine).permute(2, 0, 1))
