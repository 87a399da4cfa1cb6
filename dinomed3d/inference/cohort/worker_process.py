"""Runs prediction in a child process and restarts it after a crash (the engine `process`).

The child is started with the interpreter itself, not by multiprocessing, and reports events on its
standard output. If it is killed, for example by the system for lack of memory, the cases it had
started are tried once more, each alone in a child of its own; a case whose child dies again has
failed, and all others go on. A child without a sign of progress is killed, and the case that it hangs
in has failed.
"""

from __future__ import annotations

import _thread
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseStarted,
    Event,
    ModelOpened,
    ProgressCallback,
    WorkerFailed,
    WorkerReady,
)
from dinomed3d.inference.cohort.record import remove_leftovers
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.watchdog import POLL_S, Watchdog, give_up
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.allocator import KEEP_FREED_MEMORY
from dinomed3d.runtime.counted import counted
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.pipe_ends import unless_hung_up, wait_for_hang_up
from dinomed3d.runtime.terminal_text import print_any_text

PATIENCE_S = 20
"""Time that a child has to finish what it is writing when it must end."""
_READY = b"dinomed3d: events follow\n"
_START = """
import sys
sys.path[:] = [path for path in sys.path if path not in ("", ".")]  # no code from the folder of the scans
from dinomed3d.inference.cohort.worker_process import work
sys.exit(work())
"""


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


class WorkerProcess:
    """A child process that opens the model while the parent still searches the cases."""

    def __init__(self, spec: PredictSpec) -> None:
        """Start it.

        Raises:
            UserError: no process can be started here.
        """
        self.spec = spec
        # its temporary files go below one folder, which is removed here even if it is killed
        self.folder = tempfile.TemporaryDirectory(prefix="dinomed3d-", ignore_cleanup_errors=True)
        temporary = {name: self.folder.name for name in ("TMPDIR", "TEMP", "TMP")}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=KEEP_FREED_MEMORY | os.environ | temporary,
            )
        except OSError as error:
            self.folder.cleanup()
            raise UserError(
                f"--engine process: no second process can be started here ({error}); use --engine threads"
            ) from error
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        threading.Thread(target=self._read_events, daemon=True).start()
        self._send(spec)

    def model(self) -> Model:
        """Wait for the model that it has opened; this process need not load torch for that.

        Raises:
            UserError: the model cannot be used, or the process ended.
        """
        while (event := self._next_event()) is not None:
            if isinstance(event, ModelOpened):
                return event.model
            if isinstance(event, WorkerFailed):
                raise UserError(event.message)
        raise UserError(_ended_early(self.process.wait(), self.spec))

    def work(self, cases: Sequence[Case], watchdog: Watchdog, *, overlap: bool) -> Iterator[Event]:
        """Give it its cases, and yield its events until it ends, or until it was silent for too long."""
        self._send((cases, overlap))
        while (event := self._next_event(watchdog)) is not None:
            yield event
        if watchdog.is_over:
            self.process.kill()  # what hangs in a library hears nothing else
        else:
            self.process.wait()

    def _send(self, content: Any) -> None:
        assert self.process.stdin is not None
        with unless_hung_up():  # it has died already: its exit code says so
            pickle.dump(content, self.process.stdin)
            self.process.stdin.flush()

    def _next_event(self, watchdog: Watchdog | None = None) -> Event | None:
        """The next event; None once there are no more, or if the watchdog has waited for too long."""
        while watchdog is None or not watchdog.is_over:
            before = time.monotonic()
            with suppress(queue.Empty):
                # in short steps: on Windows nothing interrupts a long one
                return self.events.get(timeout=POLL_S)
            if watchdog is not None:
                watchdog.wait(time.monotonic() - before, at_most=2 * POLL_S)
        return None

    def _read_events(self) -> None:
        """Pass on what it reports; in a thread of its own, so that waiting for it can end."""
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            while stdout.readline() not in (_READY, b""):
                pass  # what other modules print when Python starts
            # it may end in the middle of an event, or be hung up on
            with suppress(EOFError, pickle.UnpicklingError, ValueError):
                while True:
                    self.events.put(pickle.load(stdout))
        self.events.put(None)

    def end(self) -> None:
        """Let it finish what it is writing, and remove its temporary files."""
        assert self.process.stdin is not None
        with unless_hung_up():
            self.process.stdin.close()  # then it ends by itself
        try:
            self.process.wait(timeout=PATIENCE_S + 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            # a process that waits for a dead disk cannot even be killed
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=PATIENCE_S)
        self.folder.cleanup()


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
                raise UserError(_ended_early(state.code, spec, hangs=state.stuck is not None))
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


def fail(
    case: Case, code: int | None, model: Model, spec: PredictSpec, on_event: ProgressCallback
) -> None:
    """Record a case whose process died twice."""
    reason = (
        f"its worker process ended twice ({exit_reason(code)}), the second time with this case alone; lower "
        "--memory-limit, or see the log"
    )
    give_up(case, reason, model, spec, on_event)


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


def _ended_early(code: int, spec: PredictSpec, *, hangs: bool = False) -> str:
    if hangs:
        return (
            f"the worker process has not loaded the model within {spec.stall_minutes:g} minutes; is the disk or "
            "network drive of the model still there? --stall-minutes sets the time"
        )
    return (
        f"the worker process ended ({exit_reason(code)}) before it had loaded the model; see the messages "
        "above. Too little memory can be the cause; --engine threads works without a second process"
    )


def exit_reason(code: int | None) -> str:
    """An exit code in words; None where it is not known."""
    if code in (None, -9, 137):
        return "killed, perhaps for lack of memory"
    assert code is not None
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def work() -> int:
    """Be the child process: read options and cases from standard input, write events to standard output."""
    lock = threading.Lock()
    # whatever libraries print goes to standard error; standard output is for events alone
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    channel.write(_READY)
    print_any_text()

    def on_event(event: Event) -> None:
        # if the parent was killed nobody reads: no fault of the present case, and `_end_with_parent`
        # ends this process
        with lock, unless_hung_up():
            pickle.dump(event, channel)
            channel.flush()

    try:
        # takes seconds, in which the parent searches the cases
        from dinomed3d.inference.cohort.worker import Worker
        from dinomed3d.inference.models.model import open_model

        spec: PredictSpec = pickle.load(sys.stdin.buffer)
        model = open_model(Path(spec.model), folds=spec.folds, checkpoint=spec.checkpoint)
        on_event(ModelOpened(model))
        try:
            cases, overlap = pickle.load(sys.stdin.buffer)
        except EOFError:
            return 0  # there is nothing to predict
        threading.Thread(target=_end_with_parent, daemon=True).start()
        worker = Worker(model, spec)
        on_event(WorkerReady(os.getpid(), str(worker.device)))
        worker.run(cases, on_event, overlap=overlap)
    except UserError as error:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hangs up, and it ends anyway
        on_event(WorkerFailed(str(error)))
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        # it ends now: an interruption could only break what libraries clean up
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return 0


def _end_with_parent() -> None:
    """End this process once nobody has the other end of its standard input open."""
    # not through sys.stdin, whose lock this thread would hold when the interpreter ends
    wait_for_hang_up(0)
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)  # also interrupts a main thread that waits
    else:
        _thread.interrupt_main()
    time.sleep(PATIENCE_S)
    os._exit(3)  # files are renamed once complete, so nothing half-written can stay
