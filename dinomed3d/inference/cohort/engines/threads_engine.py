"""The engine `threads`: predicts in this process, where what hangs can be noticed, but not ended."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.engines.failed_case import give_up
from dinomed3d.inference.cohort.engines.watchdog import POLL_S, Watchdog
from dinomed3d.inference.cohort.events import Event, ProgressCallback, RunStalled, WorkerReady
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.worker import Worker
from dinomed3d.inference.models.model import Model

STALLED = (
    "a thread that hangs cannot be ended, so the run cannot go on: the same command goes on with the other cases, and "
    "--engine process gives such a case up by itself"
)


def run_in_threads(
    model: Model, spec: PredictSpec, cases: Sequence[Case], on_event: ProgressCallback
) -> None:
    """Predict cases; a case that shows no sign of progress gets a record that says so.

    Args:
        model: as opened.
        spec: options.
        cases: to predict.
        on_event: receives events; RunStalled, from a thread of its own, where the run cannot go on.

    Raises:
        UserError: the model cannot be used, or nothing can be written any more.
    """
    worker, watchdog, ended = (
        Worker(model, spec),
        Watchdog(spec.stall_minutes, cases),
        threading.Event(),
    )

    def note(event: Event) -> None:
        watchdog.note(event)
        on_event(event)

    def watch() -> None:
        before = time.monotonic()
        while not ended.wait(POLL_S):
            now = time.monotonic()
            watchdog.wait(now - before, at_most=2 * POLL_S)
            before = now
            if watchdog.is_over:
                stuck = watchdog.stuck
                for case in cases:
                    if case.id in stuck:
                        give_up(case, stuck[case.id], model, spec, on_event)
                on_event(RunStalled(STALLED))
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    on_event(WorkerReady(os.getpid(), str(worker.device)))
    try:
        worker.run(cases, note)
    finally:
        ended.set()
        watcher.join()
