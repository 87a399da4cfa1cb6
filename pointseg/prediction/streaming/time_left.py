"""How long a cloud that is streamed still takes, by what this run has measured."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 60.0
"""Seconds between two lines of a log."""
WRITING = 3.0
"""How many times as long as reading a file it takes to read it again and write the result."""


class TimeLeft:
    """Is called with the share of the points whose class is known, and tells the rest."""

    def __init__(
        self,
        name: str,
        reading_s: float,
        log: Callable[[str], None],
        progress: Callable[..., None],
        *,
        begun: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin.

        Args:
            name: of the cloud.
            reading_s: seconds that reading the file once has taken.
            log: receives a line now and then.
            progress: receives the share of the work that is done; and the name, too, where an earlier run was stopped.
            begun: share of the points whose class an earlier run has found.
            clock: gives seconds.
        """
        self._name, self._writing_s = name, WRITING * reading_s
        self._log, self._progress, self._clock = log, progress, clock
        self._begun, self._at, self._said = begun, clock(), clock()
        if begun:
            progress(begun, name)

    def __call__(self, share: float) -> None:
        """Take the share of the points whose class is known."""
        now = self._clock()
        gone, found = now - self._at, share - self._begun
        if found <= 0:
            return
        left = gone / found * (1 - share) + self._writing_s
        self._progress(share * gone / (gone + self._writing_s * found))
        if now - self._said >= EVERY_S:
            self._said = now
            self._log(f"{self._name}: {100 * share:.1f} % of the points, {duration(left)} left")


def duration(seconds: float) -> str:
    """A time as people say it."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    if minutes < 60:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min"
