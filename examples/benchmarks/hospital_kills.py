"""`dinomed3d predict` is killed at random moments and called again (for `hospital.py`)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from hospital_measure import Commands


@dataclass
class Killing:
    """Runs and kills the command; whenever one finishes, its output is checked and deleted."""

    commands: Commands
    source: Path
    model: Path
    out: Path
    whole: Path
    """Output of an undisturbed run."""
    length_s: float
    """Duration of the undisturbed run."""
    seed: int
    problems: list[str] = field(default_factory=list)
    outputs: int = 0
    """Finished outputs that were compared."""

    def run(self, groups: int, commands: int, workers: int) -> dict[str, object]:
        """Kill all processes, the command alone and the worker alone, as often as asked; the findings."""
        rng = np.random.default_rng(self.seed)
        self._fresh()
        moments = []
        kinds = rng.permutation(["group"] * groups + ["command"] * commands)
        for kind in kinds:
            while True:
                moment = float(rng.uniform(0.5, self.length_s))
                child = self._start()
                with contextlib.suppress(psutil.TimeoutExpired):
                    child.wait(moment)
                    self._check(child.returncode)
                    self._fresh()
                    continue
                break
            moments.append(round(moment, 2))
            _kill(child, group=kind == "group")
        self._check(self._start().wait())
        for _ in range(workers):
            self._fresh()
            child = self._start()
            self._kill_worker(child, rng)
            self._check(child.wait())
        return {
            "kills": {"group": groups, "command": commands, "worker": workers},
            "moments_s": moments,
            "outputs_compared": self.outputs,
            "problems": self.problems,
        }

    def _fresh(self) -> None:
        shutil.rmtree(self.out, ignore_errors=True)

    def _start(self) -> psutil.Popen:
        command = self.commands.ours(self.source, self.out, self.model)
        with open(self.commands.log, "a") as stream:
            return psutil.Popen(
                command,
                env=self.commands.env,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _kill_worker(self, child: psutil.Popen, rng: np.random.Generator) -> None:
        """Kill the worker at a random moment after the first finished case."""
        while child.poll() is None and not list(self.out.rglob("*.nii.gz")):
            time.sleep(0.02)
        time.sleep(float(rng.uniform(0, 0.5 * self.length_s)))
        workers = child.children(recursive=True) if child.is_running() else []
        if not workers:
            print("a worker had ended before it could be killed", file=sys.stderr)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()

    def _check(self, code: int | None) -> None:
        """Compare a finished output with the undisturbed one."""
        self.outputs += 1
        if code != 0:
            self.problems.append(f"output {self.outputs}: exit code {code}")
        self.problems += [
            f"output {self.outputs}: {text}" for text in differences(self.out, self.whole)
        ]


def differences(out: Path, whole: Path) -> list[str]:
    """Differences between a finished output and the undisturbed one; masks are compared byte by byte."""
    problems = []
    ours, theirs = (
        {p.relative_to(f).as_posix() for p in f.rglob("*") if p.is_file()} for f in (out, whole)
    )
    problems += [f"'{name}' is missing" for name in sorted(theirs - ours)]
    problems += [f"'{name}' was left over" for name in sorted(ours - theirs)]
    for name in sorted(ours & theirs):
        if name.endswith(".nii.gz") and (out / name).read_bytes() != (whole / name).read_bytes():
            problems.append(f"'{name}' differs")
        record = name.removesuffix(".nii.gz") + ".json"
        if name.endswith(".nii.gz") and record in ours:
            status = json.loads((out / record).read_text())["status"]
            problems += [] if status == "done" else [f"'{name}' is {status}"]
    return problems


def _kill(child: psutil.Popen, *, group: bool) -> None:
    """Kill the command alone, or together with all processes that it started."""
    if not group:
        child.kill()
    elif hasattr(os, "killpg"):
        os.killpg(child.pid, signal.SIGKILL)
    else:
        tree: Sequence[psutil.Process] = [child, *child.children(recursive=True)]
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
    child.wait()
