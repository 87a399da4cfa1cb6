"""Runs the process that reads damaged inputs, and begins it anew where an input ends it.

python -m tests.fuzz.run --seconds 600 --first 1000 [KIND ...]
"""

from __future__ import annotations

import argparse
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests import ROOT

HANGS_AFTER_CPU_S, HANGS_AFTER_S = 15, 100
"""Limits of one input: processor time, and all time, in which others may hold the processor."""
STARTS_WITHIN_S = 250


@dataclass(frozen=True)
class Found:
    """An input that did not end as it must."""

    kind: str
    """Name of its kind."""
    seed: int
    """Its seed; with the kind's name it makes the same input again."""
    problem: str
    """What was done to it, and what came of it."""

    def __str__(self) -> str:
        return f"{self.kind} {self.seed}: {self.problem}"


class Child:
    """The process, and what it says, line by line."""

    def __init__(self, *arguments: str, errors: Path) -> None:
        self.errors = errors
        with open(errors, "wb") as stream:
            command = [sys.executable, "-m", "tests.fuzz.child", *arguments]
            self.process = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=stream
            )
        self.lines: queue.Queue[str | None] = queue.Queue()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as stream:
            for line in stream:
                self.lines.put(line.decode("utf-8"))
        self.lines.put(None)

    def next(self, seconds: float, cpu_seconds: float = 1e9) -> dict[str, Any] | None:
        """What it says next; None where it has ended.

        Raises:
            TimeoutError: it says nothing for so long.
        """
        began, busy = time.monotonic(), self._busy()
        while True:
            try:
                line = self.lines.get(timeout=0.2)
            except queue.Empty:
                if time.monotonic() - began > seconds or self._busy() - busy > cpu_seconds:
                    raise TimeoutError(f"no end within {time.monotonic() - began:.0f} s") from None
                continue
            return None if line is None else json.loads(line)

    def _busy(self) -> float:
        try:
            times = psutil.Process(self.process.pid).cpu_times()
        except psutil.Error:
            return 0.0
        return times.user + times.system

    def end(self) -> str:
        """End it; returns how it ended, and the end of what it wrote."""
        self.process.kill()
        self.process.wait()
        self.listener.join()
        errors = self.errors.read_text(encoding="utf-8", errors="replace")
        return f"exit code {self.process.returncode}; {errors[-3000:]}"


def fuzz(
    *,
    work: Path,
    first: int = 0,
    count: int,
    seconds: float,
    kinds: Sequence[str] = (),
    hangs_after_cpu_s: float = HANGS_AFTER_CPU_S,
    on_finding: Callable[[Found], None] = lambda found: None,
) -> tuple[int, list[Found]]:
    """Read inputs of all kinds, with `count` seeds from `first` on each, as long as there is time.

    Returns:
        How many inputs were begun, and those that did not end as they must.
    """
    end, done, findings = time.monotonic() + seconds, 0, []

    def note(found: Found) -> None:
        findings.append(found)
        on_finding(found)

    while time.monotonic() < end:
        left = str(end - time.monotonic())
        child = Child(str(first), str(count), left, str(done), *kinds, errors=work / "errors.txt")
        if (said := child.next(STARTS_WITHIN_S)) is None or "ready" not in said:
            raise RuntimeError(f"the process does not start: {said} {child.end()}")
        current: dict[str, Any] = {}
        while True:
            problem = ""
            try:
                said = child.next(HANGS_AFTER_S, hangs_after_cpu_s)
            except TimeoutError as error:
                problem = f"hangs: {error}"
            if problem or said is None:
                how = child.end()
                note(
                    Found(
                        current.get("kind", "?"),
                        current.get("seed", -1),
                        f"{problem or 'crash'}: {how}",
                    )
                )
                break
            if "done" in said:
                child.end()
                return done, findings
            if "problem" in said:
                note(Found(**said))
            else:
                current, done = said, done + 1
    return done, findings


def main() -> None:
    parser = argparse.ArgumentParser(description="reads damaged inputs and says what goes wrong")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--count", type=int, default=10**6, help="seeds of each kind")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--work", type=Path, default=Path("."))
    parser.add_argument(
        "kinds", nargs="*", help="words that the kinds' names contain (default: all)"
    )
    given = vars(parser.parse_args())
    done, findings = fuzz(on_finding=lambda found: print(found, flush=True), **given)
    print(f"{done} inputs, {len(findings)} findings")


if __name__ == "__main__":
    main()
