"""Which scenes each training step uses: a function of seed and step alone, so that runs resume exactly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from torch.utils.data import Sampler

from dinomed3d.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """An endless series of scenes, cut into steps, accumulated batches and devices.

    Item n of the series is scene ``permutation(epoch)[n % scenes]`` with epoch = n // scenes: every
    scene is seen once per epoch, also where an epoch does not end with a batch.
    """

    scenes: int
    """Number of training scenes."""
    batch_size: int
    """Scenes per step, over all devices and accumulated batches."""
    seed: int
    """Seed of the order of scenes."""
    devices: int = 1
    """Devices that share a step."""
    accumulate: int = 1
    """Batches that a device's share of a step is split into; their gradients are accumulated."""

    def __post_init__(self) -> None:
        if self.scenes < 1:
            raise ValueError(f"Schedule: 'scenes' must be >= 1, got {self.scenes}")
        if self.batch_size % (self.devices * self.accumulate):
            raise UserError(
                f"batch_size={self.batch_size}: must be a multiple of devices times accumulated batches, "
                f"{self.devices} x {self.accumulate} (--devices, --accumulate-grad-batches)"
            )

    def steps(self, epochs: int) -> int:
        """Steps that see every scene at least ``epochs`` times."""
        return -(-epochs * self.scenes // self.batch_size)

    def items(self, step: int, device: int, batch: int) -> list[tuple[int, int]]:
        """(number in the series, scene) of one device's accumulated batch of a step."""
        share = self.batch_size // (self.devices * self.accumulate)
        first = step * self.batch_size + (batch * self.devices + device) * share
        return [(n, self._scene(n)) for n in range(first, first + share)]

    def _scene(self, number: int) -> int:
        epoch, place = divmod(number, self.scenes)
        order = np.random.default_rng([self.seed, epoch]).permutation(self.scenes)
        return int(order[place])


class Batches(Sampler[tuple[int, int]]):
    """The (step, accumulated batch) that each device's data loader fetches from step ``start`` to ``stop``."""

    def __init__(self, schedule: Schedule, *, start: int, stop: int) -> None:
        self.schedule, self.start, self.stop = schedule, start, stop

    def __len__(self) -> int:
        return (self.stop - self.start) * self.schedule.accumulate

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for step in range(self.start, self.stop):
            for batch in range(self.schedule.accumulate):
                yield step, batch
