"""Time and memory of a piece of work in a process of its own, so that no measurement disturbs another.

A script that measures has a hidden option `--job` that takes JSON and prints JSON; `run_job` calls it. Linux only.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from typing import Any


def run_job(script: str, job: object, *flags: str, threads: int) -> dict[str, Any]:
    """Run `script --job JOB FLAGS` and read the JSON on its last line.

    Args:
        script: path of the script.
        job: a dataclass of plain values.
        flags: further options.
        threads: of the process.
    """
    command = [sys.executable, script, "--job", json.dumps(vars(job)), *flags]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment)
    if done.returncode:
        raise RuntimeError(f"{job}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def reset_peak() -> float:
    """Give free memory back and count the peak from here; the MiB that are held now."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return _status("VmRSS")


def peak() -> float:
    """MiB held at most since `reset_peak`."""
    return _status("VmHWM")


def _status(kind: str) -> float:
    with open("/proc/self/status") as file:
        return next(float(line.split()[1]) for line in file if line.startswith(kind)) / 2**10
