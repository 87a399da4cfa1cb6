"""Gives up cases that show no sign of progress: a file, a disk or a library that hangs must not stop a night's run.

Signs are the beginnings and ends of steps, and each pass of a batch of windows through a network, so that a large
volume or a slow machine is no reason to give up. Steps that read or write give no signs on the way; they are allowed
more time for large scans.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseStarted,
    CaseStep,
    Event,
    WorkerReady,
)
from dinomed3d.inference.models.model import Model

POLL_S = 1.0
"""How often the time is looked at."""
SLOWEST_BYTES_PER_S = 1e6
"""A scan that is read more slowly than this shows no progress."""


class Watchdog:
    """How long a worker has been silent, and at what."""

    def __init__(
        self, minutes: float, cases: Sequence[Case], *, loads: Model | None = None
    ) -> None:
        """Begin to count.

        Args:
            minutes: of silence that are allowed; 0 allows any.
            cases: that the worker will predict.
            loads: the model that it loads before; None: it has it in memory.
        """
        self._limit_s = 60 * minutes if minutes else math.inf
        self._sizes = {case.id: case.size_bytes for case in cases}
        self._loading = 0 if loads is None else sum(loads.sizes.values())
        self._silent_s = 0.0
        self.signs = 0
        """Number of signs of progress so far."""
        self._started: dict[str, None] = {}
        self._steps: dict[str, str] = {}
        self._lock = threading.Lock()

    def note(self, event: Event) -> None:
        """Take any event as a sign of progress; from any thread."""
        with self._lock:
            self._silent_s = 0.0
            self.signs += 1
            if isinstance(event, WorkerReady):
                self._loading = 0
            elif isinstance(event, CaseStarted):
                self._started[event.case] = None
            elif isinstance(event, CaseEnded):
                self._started.pop(event.case, None)
                self._steps.pop(event.case, None)
            elif isinstance(event, CaseStep):
                if event.ended:
                    self._steps.pop(event.case, None)
                else:
                    self._steps[event.case] = event.step

    def wait(self, seconds: float, *, at_most: float) -> None:
        """Count time without an event.

        Args:
            seconds: since the last call.
            at_most: more are not counted: this process was suspended, and the worker perhaps, too.
        """
        with self._lock:
            self._silent_s += min(seconds, at_most)

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        with self._lock:
            waits_for = max((self._sizes[case] for case in self._started), default=self._loading)
            return self._silent_s >= self._limit_s + waits_for / SLOWEST_BYTES_PER_S

    @property
    def stuck(self) -> dict[str, str]:
        """The cases in whose steps it stopped -> why each is given up."""
        with self._lock:
            # between steps it is the case that was started first that holds up the others
            cases = self._steps or dict.fromkeys(list(self._started)[:1], "waiting")
            return {case: self.reason(step) for case, step in cases.items()}

    def reason(self, step: str) -> str:
        """Why a case is given up in this step."""
        silent_s = self._silent_s
        silent = f"{silent_s / 60:.0f} minutes" if silent_s >= 90 else f"{silent_s:.0f} seconds"
        return (
            f"no sign of progress in step '{step}' for {silent}, so it was given up: its file, the disk or a library "
            "hangs (--stall-minutes sets the time)"
        )
