"""What `predict` shows on stderr while it runs: a line per case, and where the running case is."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import unicodedata
from types import TracebackType

from dinomed3d.cli.progress.time_left import CaseTime, RunTime, duration
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseProgress,
    CasesFound,
    CaseStarted,
    CaseStep,
    Event,
    RunStalled,
    WorkerAlive,
    WorkerReady,
)
from dinomed3d.runtime.messages.counted import counted
from dinomed3d.runtime.messages.terminal_text import one_line

LIVE_EVERY_S = 0.2
"""A terminal's line is written over this often at most."""
LOG_EVERY_S = 120.0
"""Without a terminal, a line says where the case is after so long without one."""
STEPS = {
    "estimate": "reading its header",
    "read": "reading",
    "preprocess": "preprocessing",
    "localizer": "localizer",
    "first stage": "first stage",
    "network": "network",
    "postprocess": "postprocessing",
    "write": "writing the results",
}
"""Steps of a case -> what is said of them."""
ON_DEVICE = ("localizer", "first stage", "network")
"""Steps in which networks run; meanwhile the case before is written, and the one after is read."""
SHORTEST_NAME = 12
"""Narrow terminals show so much of a case's name at least."""


class Progress:
    """Shows the events of a run; a context, at whose end the line of the running case is removed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.total = self.ended = 0
        self.device = ""
        self.time = RunTime({})
        self.cases: dict[str, CaseTime] = {}
        """The cases that were started, in this order, with the step that each is in."""
        self.shown = time.monotonic()
        """When a line was printed last."""
        self.live = sys.stderr.isatty()

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __call__(self, event: Event) -> None:
        """Show an event; from any thread."""
        with self.lock:
            now = time.monotonic()
            if isinstance(event, CasesFound):
                self._found(event)
            elif isinstance(event, WorkerReady):
                self.device = event.device
            elif isinstance(event, CaseStarted):
                self.time.begin(now)
                self.cases[event.case] = CaseTime("estimate", now)
            elif isinstance(event, CaseStep) and not event.ended:
                self.cases[event.case] = CaseTime(event.step, now)
            elif isinstance(event, CaseProgress):
                self._case(event.case, event.step, now).count(event.done, event.windows)
            elif isinstance(event, CaseEnded):
                self._ended(event, now)
            elif isinstance(event, RunStalled):
                self._print(f"dinomed3d predict: {event.message}")
                os._exit(1)  # nothing else ends a thread that hangs
            if isinstance(event, (CaseStarted, CaseStep, CaseProgress, WorkerAlive)):
                self._running(now)

    def _case(self, case: str, step: str, now: float) -> CaseTime:
        """The running step of a case."""
        known = self.cases.get(case)
        if known is None or known.step != step:
            known = self.cases[case] = CaseTime(step, now)
        return known

    def _print(self, text: str, end: str = "\n") -> None:
        """Print one line, over the one of the running case."""
        clear = "\r\x1b[K" if self.live else ""
        print(f"{clear}{one_line(text)}", end=end, file=sys.stderr, flush=True)
        self.shown = time.monotonic()

    def _running(self, now: float) -> None:
        """Say where the running case is: on a terminal often, in a log where it has been silent for long."""
        if not self.cases or now - self.shown < (LIVE_EVERY_S if self.live else LOG_EVERY_S):
            return
        on_device = [case for case, at in self.cases.items() if at.step in ON_DEVICE]
        case = [*on_device, *self.cases][0]
        at = self.cases[case]
        parts = [STEPS.get(at.step, at.step)]
        if at.windows:
            parts = [f"window {at.done} of {at.windows} ({at.done / at.windows:.0%})"]
            parts += [at.step] if at.step != "network" else []
        parts += [self.device] if self.device and at.step in ON_DEVICE else []
        parts += self._left(case, now)
        before, after = f"[{self.ended + 1}/{self.total}] ", f": {', '.join(parts)}"
        if self.live:
            room = shutil.get_terminal_size().columns - 1 - len(before) - len(after)
            self._print(f"{before}{shortened(one_line(case), room)}{after}", end="")
        else:
            self._print(f"{before}{case}{after}")

    def _left(self, case: str, now: float) -> list[str]:
        """The time that is left for the running case and for all, as far as there is evidence."""
        at = self.cases[case]
        of_case = at.left(now)
        of_run = self.time.left(case, at.fraction) if self.total > 1 else None
        if of_run is not None:
            return [f"about {duration(of_run)} left"]
        return [] if of_case is None else [f"about {duration(of_case)} left for this case"]

    def _found(self, event: CasesFound) -> None:
        shard, work = event.shard, event.work
        self.total = len(work.todo)
        self.time = RunTime({case.id: case.size_bytes for case in work.todo})
        parts = [f"{counted(len(shard.cases), 'case')} found", f"{self.total} to predict"]
        for cases, text in (
            (work.kept, "done earlier and verified"),
            (work.edited, "of them corrected by hand, kept as they are"),
            (work.completed, "of them completed with what they lacked"),
            (work.failed, "failed earlier (--retry-failed predicts them again)"),
            (work.blocked, "not predicted: files of other origin have their names in OUT"),
            (shard.rejected, "rejected"),
        ):
            parts += [f"{len(cases)} {text}"] if cases else []
        if shard.left_out:
            shown = ", ".join(list(shard.left_out)[:3]) + (
                ", ..." if len(shard.left_out) > 3 else ""
            )
            parts.append(f"{counted(len(shard.left_out), 'label image')} left out ({shown})")
        ignored = ", ".join(f"{count} {why}" for why, count in shard.ignored.items())
        self._print("; ".join([*parts, f"ignored: {ignored}"] if ignored else parts))
        for case, why in work.redone.items():
            self._print(f"again: {case}: {why}")
        if event.hint is not None:
            self._print(event.hint)
        if self.live and self.total:
            self._print("loading the model", end="")

    def _ended(self, event: CaseEnded, now: float) -> None:
        self.ended += 1
        self.cases.pop(event.case, None)
        self.time.end(event.case, now, is_done=event.reason is None)
        seconds = sum(event.seconds.values())
        result = f"{seconds:.1f} s" if event.reason is None else f"FAILED: {event.reason}"
        left_s = self.time.left() if self.ended < self.total else None
        left = "" if left_s is None else f", about {duration(left_s)} left"
        self._print(f"[{self.ended}/{self.total}] {event.case}: {result}{left}")


def shortened(name: str, room: int) -> str:
    """A name without its beginning where it needs more columns of a terminal than there are."""
    room = max(room, SHORTEST_NAME)
    widths = [2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in name]
    if sum(widths) <= room:
        return name
    start = 0
    while sum(widths[start:]) > room - 3:
        start += 1
    return f"...{name[start:]}"
