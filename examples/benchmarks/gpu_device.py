"""What `gpu.py` measures on a device: milliseconds, memory, kernel launches, and where the host waits.

All lines that need CUDA are here. On a CPU milliseconds come from the clock, and the other figures, which only a GPU
has, are None.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

PACKAGES = ("pointseg", "dinomed3d", "planners")
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
"""Calls of the CUDA runtime and driver that start a kernel, as the profiler names them."""
WAIT = "called a synchronizing CUDA operation"
"""Beginning of torch's warning where the host waits for the device."""
LISTED = 12
"""Kernels and places that are listed, the largest first."""

Work = Callable[[], object]


class Gauge:
    """Measures work on one device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.on_cuda = device.type == "cuda"

    @property
    def name(self) -> str:
        """Of the device, as its driver gives it."""
        return torch.cuda.get_device_name(self.device) if self.on_cuda else "cpu"

    def wait(self) -> None:
        """Until all that was asked of the device is done."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def free(self) -> None:
        """Give cached memory back, so that the next measurement begins as the first did."""
        if self.on_cuda:
            torch.cuda.empty_cache()

    def milliseconds(self, work: Work, *, warm: int = 2, repeats: int = 7) -> float:
        """Median of several runs, each from its first launch to its last kernel's end."""
        for _ in range(warm):
            work()
        found = []
        for _ in range(repeats):
            self.wait()
            found.append(self._once(work))
        return round(median(found), 4)

    def _once(self, work: Work) -> float:
        if not self.on_cuda:
            start = time.perf_counter()
            work()
            return 1e3 * (time.perf_counter() - start)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        self.wait()
        return float(begin.elapsed_time(end))

    def peak_gib(self, work: Work) -> float | None:
        """Most memory that tensors took while it ran, those that were there before included."""
        if not self.on_cuda:
            work()
            return None
        self.free()
        torch.cuda.reset_peak_memory_stats(self.device)
        work()
        self.wait()
        return round(torch.cuda.max_memory_allocated(self.device) / 2**30, 3)

    def launches(self, work: Work) -> dict[str, Any] | None:
        """Kernels that were launched, milliseconds that the device computed, and the longest kernels."""
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self.on_cuda
        with profile(activities=kinds) as profiler:
            work()
            self.wait()
        return counted(profiler.key_averages()) if self.on_cuda else None

    def waits(self, work: Work) -> dict[str, Any] | None:
        """How often the host waited for the device, and where: file:line of our code, or of what called torch."""
        places: Counter[str] = Counter()
        with listed_waits(places):
            before = torch.cuda.get_sync_debug_mode() if self.on_cuda else 0
            try:
                if self.on_cuda:
                    torch.cuda.set_sync_debug_mode("warn")
                work()
            finally:
                if self.on_cuda:
                    torch.cuda.set_sync_debug_mode(before)
        if not self.on_cuda:
            return None
        return {"total": places.total(), "places": places.most_common(LISTED)}


def counted(events: Iterable[Any]) -> dict[str, Any]:
    """Summary of the profiler's averages, one for each name of an operator, runtime call or kernel."""
    events = list(events)
    on_device = [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]
    kernels = [e for e in on_device if not e.is_user_annotation]
    moves = [e for e in kernels if e.key.startswith(("Memcpy", "Memset"))]
    longest = sorted(kernels, key=lambda e: -e.self_device_time_total)[:LISTED]
    return {
        "launches": sum(e.count for e in events if e.key in LAUNCHES),
        "kernels": sum(e.count for e in kernels) - sum(e.count for e in moves),
        "copies": sum(e.count for e in moves),
        "device ms": round(sum(e.self_device_time_total for e in kernels) / 1e3, 3),
        "longest": [
            [e.key[:80], e.count, round(e.self_device_time_total / 1e3, 3)] for e in longest
        ],
    }


@contextmanager
def listed_waits(places: Counter[str]) -> Iterator[None]:
    """Count torch's warnings about waiting by the place of our code that leads to them."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, line: int, *_: Any
    ) -> None:
        if WAIT in str(message):
            places[_place(filename, line)] += 1

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def _place(filename: str, line: int) -> str:
    """Of the innermost frame in our packages; of the warning, if there is none."""
    frame = sys._getframe(2)
    while frame is not None:
        name = str(
            frame.f_globals.get("__name__")
        )  # not the path: packages may be installed anywhere
        if name.split(".")[0] in PACKAGES:
            return f"{name.replace('.', '/')}.py:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return f"{filename}:{line}"
