"""Memory of the process and its networks, as measured, and the limit for all of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dinomed3d.runtime.hardware.allocator import give_back_freed
from dinomed3d.runtime.hardware.memory import free_bytes, resident_bytes

GIB = 2**30
FREE_MEMORY_SHARE = 0.8
"""Fraction of the free memory that is used where no limit is given."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Memory of the process and its networks, in bytes."""

    base: int
    """Resident memory with the model loaded and no case being processed."""
    window: int
    """Additional memory while batches of windows are in the networks."""
    slice: int = 0
    """Cached features of one slice at one position in the plane."""
    cache: int = 0
    """Limit of all cached features."""


def measure(run: Callable[[], object]) -> Footprint:
    """Measure the process while a batch of windows goes through the networks."""
    give_back_freed()  # before, too: what is given back afterwards would count as the run's
    with peak_resident() as peak_gib:
        run()
    give_back_freed()
    base = resident_bytes()
    return Footprint(base=base, window=max(0, int(peak_gib() * GIB) - base))


def limit_bytes(limit_gib: float | None) -> int:
    """The limit for the whole process in bytes; without one, most of the memory that is free now."""
    if limit_gib is not None:
        return int(limit_gib * GIB)
    return resident_bytes() + int(free_bytes() * FREE_MEMORY_SHARE)


@contextmanager
def peak_resident() -> Iterator[Callable[[], float]]:
    """Yield a function that gives the highest GiB of the process since the block began."""
    peak, ended = resident_bytes(), threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.005):
            peak = max(peak, resident_bytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(peak, resident_bytes()) / GIB
    finally:
        ended.set()
        watcher.join()
