"""The engine `process`: one child process after the other, so that a crash costs one case at most.

If a child is killed, for example by the system for lack of memory, the cases it had started are tried once
more, each alone in a child of its own; a case whose child dies again has failed, and all others go on. A child
without a sign of progress is killed, and the case that it hangs in has failed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.engines.failed_case import exit_reason, fail, give_up
from dinomed3d.inference.cohort.engines.watchdog import Watchdog
from dinomed3d.inference.cohort.engines.worker_process import WorkerProcess, ended_early
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseStarted,
    ModelOpened,
    ProgressCallback,
    WorkerFailed,
    WorkerReady,
)
from dinomed3d.inference.cohort.outputs.remove_results import remove_leftovers
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.counted import counted


@dataclass
class WorkerState:
    """What became of one worker process."""

    started: set[str] = field(default_factory=set)
    """Cases it has started."""
    ended: set[str] = field(default_factory=set)
    """Cases that have their record."""
    ready: bool = False
    """Whether it has loaded the networks."""
    stuck: Mapping[str, str] | None = None
    """Cases with which it was given up, since it showed no sign of progress -> why; None: it was not."""
    code: int = 0
    """Exit code of the process."""


def supervise(
    model: Model,
    spec: PredictSpec,
    cases: Sequence[Case],
    on_event: ProgressCallback,
    first: WorkerProcess,
) -> None:
    """Predict cases in one worker process after the other; each case has a record in the end.

    Args:
        model: as opened by `first`.
        spec: options.
        cases: to predict.
        on_event: receives events.
        first: a process that was started before; it is ended here.

    Raises:
        UserError: no process can start, or the model cannot be used.
    """
    waiting = list(cases)
    suspects: list[Case] = []  # cases whose process died
    worker: WorkerProcess | None = first
    while waiting or suspects:
        alone = bool(suspects)
        batch = [suspects.pop(0)] if alone else waiting
        watchdog = Watchdog(spec.stall_minutes, batch, loads=model)
        state = _run_worker(
            worker or WorkerProcess(spec), batch, on_event, watchdog, overlap=not alone
        )
        worker = None
        if state.code == 130:
            raise KeyboardInterrupt
        if state.code != 0:
            if not state.ready:
                raise UserError(ended_early(state.code, spec, hangs=state.stuck is not None))
            remove_leftovers(Path(spec.out), [case.id for case in batch])
        blamed = state.started if state.stuck is None else set(state.stuck)
        if state.stuck is not None and (alone or len(blamed) == 1):
            for case in batch:
                if case.id in blamed:
                    give_up(case, state.stuck[case.id], model, spec, on_event)
            state.ended |= blamed
        left = [case for case in batch if case.id not in state.ended]
        if alone:
            for case in left:
                fail(case, state.code, model, spec, on_event)
            continue
        suspects = [case for case in left if case.id in blamed]
        waiting = [case for case in left if case.id not in blamed]
        if waiting and (state.code == 0 or not (suspects or state.ended)):
            raise UserError(
                f"the worker process ended ({exit_reason(state.code)}) with {counted(len(waiting), 'case')} left; see "
                "the messages above"
            )


def _run_worker(
    worker: WorkerProcess,
    cases: Sequence[Case],
    on_event: ProgressCallback,
    watchdog: Watchdog,
    *,
    overlap: bool,
) -> WorkerState:
    """Let one process work until it ends.

    Raises:
        UserError: it reports one.
    """
    state = WorkerState()
    try:
        for event in worker.work(cases, watchdog, overlap=overlap):
            watchdog.note(event)
            if isinstance(event, WorkerFailed):
                raise UserError(event.message)
            if isinstance(event, WorkerReady):
                state.ready = True
            if not isinstance(event, ModelOpened):  # known already
                if isinstance(event, CaseStarted):
                    state.started.add(event.case)
                elif isinstance(event, CaseEnded):
                    state.ended.add(event.case)
                on_event(event)
        if watchdog.is_over:
            state.stuck, state.code = watchdog.stuck, -9
        else:
            state.code = worker.process.returncode
    finally:
        worker.end()
    return state
