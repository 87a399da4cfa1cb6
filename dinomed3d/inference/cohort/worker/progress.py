"""What a worker reports while networks are at work: signs of life, and how many windows are done."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from dinomed3d.inference.cohort.events import CaseProgress, ProgressCallback, WorkerAlive

SIGN_EVERY_S = 5.0
"""Signs of a network are reported this often at most."""


def signs(on_event: ProgressCallback) -> Callable[[], None]:
    """A function for networks to call after each pass: an event now and then."""
    last = -math.inf

    def sign() -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SIGN_EVERY_S:
            last = now
            on_event(WorkerAlive())

    return sign


def windows_done(case: str, step: str, on_event: ProgressCallback) -> Callable[[int, int], None]:
    """A function for the sliding window of one step to call: an event for each batch."""
    return lambda done, windows: on_event(CaseProgress(case, done, windows, step))
