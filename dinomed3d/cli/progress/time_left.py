"""The time that is left for a case and for a run, from what was measured so far and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

EVIDENCE_S = 5.0
"""The windows of a case say how long it takes once they have taken so long."""


@dataclass
class CaseTime:
    """A step of a case, and how far it is."""

    step: str
    """Name of the step."""
    started: float
    """When it began, s."""
    done: int = 0
    """Windows that are done."""
    windows: int = 0
    """All windows; 0 where it is not known or has none."""

    def count(self, done: int, windows: int) -> None:
        """Take the number of windows that are done, and of all."""
        self.done, self.windows = done, windows

    @property
    def fraction(self) -> float:
        """The part of the case that the network has done, 0 to 1."""
        if self.step == "write":
            return 1.0
        return self.done / self.windows if self.step == "network" and self.windows else 0.0

    def left(self, now: float) -> float | None:
        """Seconds until the network has done the case; None where nothing says so yet."""
        took = now - self.started
        if self.step != "network" or not self.done or took < EVIDENCE_S:
            return None
        return took / self.done * (self.windows - self.done)


class RunTime:
    """The time that a run takes, from its finished cases: seconds per byte of their files."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        """Begin without evidence.

        Args:
            sizes: bytes of each case's files; one of 0 is not known.
        """
        self._left = {case: max(1, size) for case, size in sizes.items()}
        self._started: float | None = None
        self._done, self._seconds = 0, 0.0

    def begin(self, now: float) -> None:
        """The first case begins: the model is loaded before, and that says nothing of the cases."""
        self._started = now if self._started is None else self._started

    def end(self, case: str, now: float, *, is_done: bool) -> None:
        """A case has ended; one that failed, often at once, says nothing of the others."""
        size = self._left.pop(case, 0)
        if is_done and self._started is not None:
            self._done += size
            self._seconds = now - self._started

    def left(self, case: str | None = None, fraction: float = 0.0) -> float | None:
        """Seconds that are left, None before a case is done.

        Args:
            case: that runs.
            fraction: of it that is done.
        """
        if not self._done:
            return None
        rest = sum(self._left.values()) - fraction * self._left.get(case or "", 0)
        return self._seconds / self._done * rest


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"  # never none while something runs
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
