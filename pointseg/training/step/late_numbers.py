"""Numbers of training steps, read one step late on a device so that the loop never waits for it.

The host launches step 0, step 1, reads the numbers of step 0 (which the device has finished by then or is about to),
launches step 2, reads those of step 1, and so on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class StepNumbers:
    """What the log says about one step."""

    step: int
    """Number of the step, 0-based."""
    values: dict[str, float]
    """By name."""


class LateNumbers:
    """The numbers of the last steps, on their way to the host."""

    def __init__(self, device: torch.device) -> None:
        self.late = 0 if device.type == "cpu" else 1
        """Steps whose numbers stay unread while the next one runs; a CPU is never waited for."""
        self._pending: deque[_Pending] = deque()

    def add(
        self,
        step: int,
        known: Mapping[str, float],
        computed: Mapping[str, Tensor],
        accumulated: Sequence[Mapping[str, Tensor]],
    ) -> None:
        """Start to copy the numbers of a step.

        Args:
            step: its number.
            known: numbers that the host has.
            computed: scalars of the step on the device.
            accumulated: likewise of each of its accumulated batches; the log says their mean.
        """
        named = [(name, value, 1) for name, value in computed.items()]
        named += [
            (n, value, len(accumulated)) for batch in accumulated for n, value in batch.items()
        ]
        scalars = torch.stack([value.detach().reshape(()) for _, value, _ in named])
        arrived = None
        if (
            scalars.device.type == "cuda"
        ):  # into pinned memory; there once the device passes the event
            scalars = scalars.to("cpu", non_blocking=True)
            arrived = torch.cuda.Event()
            arrived.record()
        shares = [(name, count) for name, _, count in named]
        self._pending.append(_Pending(step, dict(known), shares, scalars, arrived))

    def read(self, *, everything: bool = False) -> Iterator[StepNumbers]:
        """Numbers of all steps but the last ones, or of all, in their order; waits until these are computed."""
        while len(self._pending) > (0 if everything else self.late):
            yield self._pending.popleft().read()


@dataclass(frozen=True)
class _Pending:
    step: int
    known: dict[str, float]
    shares: list[tuple[str, int]]
    """Name of each scalar, and how many scalars its mean is over."""
    scalars: Tensor
    arrived: torch.cuda.Event | None

    def read(self) -> StepNumbers:
        if self.arrived is not None:
            self.arrived.synchronize()
        values: dict[str, float] = {}
        for (name, count), value in zip(self.shares, self.scalars.tolist(), strict=True):
            values[name] = values.get(name, 0.0) + value / count
        return StepNumbers(self.step, values | self.known)
