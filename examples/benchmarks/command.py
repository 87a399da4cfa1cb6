"""A command measured from its start to its end: seconds, and memory of all its processes."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import psutil

SAMPLE_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a command took."""

    seconds: float
    """Wall-clock time."""
    rss_gib: float
    """Highest sum of resident memory over its processes; pages that they share count in each."""
    pss_gib: float | None
    """The same with shared pages counted once; None where the system does not say."""

    @property
    def memory_gib(self) -> float:
        """The proportional figure where there is one."""
        return self.rss_gib if self.pss_gib is None else self.pss_gib


def program(name: str) -> str:
    """The path of a console command, that of this environment if it has one."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or name


def measure(
    command: Sequence[str],
    *,
    env: dict[str, str],
    log: Path,
    done: Callable[[], bool] = lambda: False,
) -> Measured:
    """Run a command to its end, or until `done`; its output is appended to `log`.

    Raises:
        SystemExit: the command failed; the message has the end of the log.
    """
    print(f"running: {' '.join(command)}", file=sys.stderr, flush=True)
    start, stopped = time.perf_counter(), False
    with open(log, "a") as stream:
        child = psutil.Popen(command, env=env, stdout=stream, stderr=subprocess.STDOUT)
        tree, looked = [child], start
        rss = pss = pss_after = 0.0
        while child.poll() is None:
            now = time.perf_counter()
            if now - looked > 0.25:  # walking through all processes takes milliseconds
                with contextlib.suppress(psutil.Error):
                    tree, looked = [child, *child.children(recursive=True)], now
                if done():
                    stopped = True
                    for process in reversed(tree):
                        with contextlib.suppress(psutil.NoSuchProcess):
                            process.kill()
                    child.wait()
            total = sum(_rss(process) for process in tree)
            rss = max(rss, total)
            if total > 0.85 * rss and now > pss_after:
                pss = max(pss, sum(_pss(process) for process in tree))
                # the kernel walks all pages for it: a twentieth of the time at most
                pss_after = now + 20 * (time.perf_counter() - now)
            time.sleep(SAMPLE_S)
    if child.returncode and not stopped:
        tail = "\n".join(log.read_text().splitlines()[-15:])
        raise SystemExit(f"{' '.join(command)} failed with {child.returncode}\n{tail}")
    seconds = time.perf_counter() - start
    return Measured(seconds=seconds, rss_gib=rss / 2**30, pss_gib=pss / 2**30 if pss else None)


def _rss(process: psutil.Process) -> float:
    try:
        return float(process.memory_info().rss)
    except psutil.Error:
        return 0.0


def _pss(process: psutil.Process) -> float:
    try:
        return float(getattr(process.memory_full_info(), "pss", 0.0))
    except (psutil.Error, OSError):
        return 0.0


def machine(*packages: str) -> dict[str, object]:
    """Processor, memory, system, and versions of packages."""
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        processor = next(line for line in lines if line.startswith("model name")).split(": ")[1]
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
    }
