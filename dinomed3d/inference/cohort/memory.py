"""How much memory a case will need, how it is made to fit, and which cases may be in work together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.inference.nnunet.resample import new_shape
from dinomed3d.inference.nnunet.sliding_window import window_starts
from dinomed3d.runtime.memory import free_bytes, resident_bytes

GIB = 2**30
SLABS = 200 * 2**20
"""What the parts of volumes that are worked on at once take, all together."""
MARGIN = 1.15
"""For what allocators keep and libraries take for a moment."""
MOST_BANDS = 16
SHARE = 0.8
"""Of the memory that is free at the start, where no limit is given."""


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """Of the process and its networks, in bytes."""

    base: int
    """With everything loaded and nothing in work."""
    window: int
    """More while a batch of windows is in the networks."""
    slice: int = 0
    """Features kept for one slice at one place in the plane."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Of one case, in bytes above the base."""

    bands: int
    """Parts in which the network's grid is swept."""
    peak: int


def measure(run: Callable[[], object]) -> Footprint:
    """Run a batch of windows through the networks, and see what the process takes."""
    with highest_resident() as highest:
        run()
    base = resident_bytes()
    return Footprint(base=base, window=max(0, int(highest() * GIB) - base))


def limit_bytes(limit_gib: float | None) -> int:
    """The limit for the whole process in bytes; without one, most of what is free now."""
    if limit_gib is not None:
        return int(limit_gib * GIB)
    return resident_bytes() + int(free_bytes() * SHARE)


def estimate(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    plan: Plan,
    footprint: Footprint,
    limit: int,
    *,
    spec: PredictSpec,
    ending: str,
) -> Need:
    """How a volume fits under a limit.

    Args:
        shape: (Z, Y, X) of the volume, in its own order of axes.
        spacing_mm: (z, y, x).
        plan: the model's.
        footprint: of the process.
        limit: bytes for the whole process.
        spec: what else is to be written, and how closely windows lie.
        ending: of the scan's files: some readers take more than others.

    Returns:
        The fewest bands that fit, and the peak.

    Raises:
        CaseError: it does not fit however it is cut.
    """
    voxels = shape[0] * shape[1] * shape[2]
    turned = [shape[axis] for axis in plan.transpose]
    spacing = [spacing_mm[axis] for axis in plan.transpose]
    target = plan.spacing_mm if len(plan.spacing_mm) == 3 else (spacing[0], *plan.spacing_mm)
    grid = [max(1, n) for n in new_shape(turned, spacing, target)]
    patch = plan.patch if len(plan.patch) == 3 else (1, *plan.patch)
    padded = [max(n, p) for n, p in zip(grid, patch, strict=True)]
    size = padded[0] * padded[1] * padded[2]
    count = len(plan.channels)
    raw = 4 * voxels * count
    # one channel is unpacked and converted at a time; ITK holds all of a file, up to float64
    read = raw + (8 * voxels * count if ending in (".mha", ".nrrd") else 4 * voxels)
    data = 4 * count * grid[0] * grid[1] * grid[2]
    planes = 4 * turned[0] * grid[1] * grid[2] if turned[0] != grid[0] else 0
    masked = 5 * voxels if any(channel.masked for channel in plan.channels) else 0
    prepare = raw + data + planes + masked + SLABS
    mask = voxels * (1 if plan.largest_label < 256 else 2)
    copies = data + (4 * count * size if padded != grid else 0)
    # highdicom holds a mask several times, of regions each
    objects = (11 if plan.regions is None else 11 + plan.heads) * mask
    write = raw + (objects if spec.dicom_seg and ending == ".dcm" else 4 * mask) + SLABS
    plane_out = turned[1] * turned[2]
    fine = 16 * plan.heads * plane_out if spec.save_probabilities else 0
    least = 0
    for bands in range(1, MOST_BANDS + 1):
        rows = min(padded[1], -(-padded[1] // bands) + 2)
        plane = rows * padded[2]
        held = 2 * (plan.heads + 1) * patch[0] * plane
        export = 8 * 4 * plan.heads * plane  # two planes of logits, their mixture, their certainty
        across = len(window_starts(padded[2], patch[2], spec.step_size))
        down = len(window_starts(padded[1], patch[1], spec.step_size))
        places = across * min(down, -(-down // bands) + 2)
        kept = 2 * patch[0] * places * footprint.slice
        sweep = raw + copies + held + export + fine + kept + mask + SLABS + footprint.window
        least = int(MARGIN * max(read, prepare, write, sweep))
        if footprint.base + least <= limit:
            return Need(bands=bands, peak=least)
    raise CaseError(
        f"needs about {(footprint.base + least) / GIB:.1f} GiB of memory even in {MOST_BANDS} parts, and "
        f"{limit / GIB:.1f} GiB are allowed; raise --memory-limit or use a machine with more memory"
    )


class Budget:
    """Cases are let in, in order, as long as all those in work fit under the limit together."""

    def __init__(self, limit: int) -> None:
        """Start empty.

        Args:
            limit: bytes above the process's base.
        """
        self.limit = limit
        self.used = 0
        self.closed = False
        self.changed = threading.Condition()

    def enter(self, peak: int) -> None:
        """Wait until a case with this peak fits; one alone always does.

        Raises:
            InterruptedError: the budget was closed while it waited.
        """
        with self.changed:
            self.changed.wait_for(
                lambda: self.closed or not self.used or self.used + peak <= self.limit
            )
            if self.closed:
                raise InterruptedError
            self.used += peak

    def leave(self, peak: int) -> None:
        """The case is done."""
        with self.changed:
            self.used -= peak
            self.changed.notify_all()

    def close(self) -> None:
        """Let nobody in any more."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()


@contextmanager
def highest_resident() -> Iterator[Callable[[], float]]:
    """Gives a function that says the most GiB the process has taken since the block began."""
    import psutil

    process = psutil.Process()
    highest, ended = process.memory_info().rss, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not ended.wait(0.005):
            highest = max(highest, process.memory_info().rss)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield lambda: max(highest, process.memory_info().rss) / GIB
    finally:
        ended.set()
        watcher.join()
