"""A child process as its parent sees it: started, given its cases, listened to, ended.

It is started with the interpreter itself, not by multiprocessing, and reports events on its standard output.
"""

from __future__ import annotations

import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.engines.child_process import PATIENCE_S, READY
from dinomed3d.inference.cohort.engines.failed_case import exit_reason
from dinomed3d.inference.cohort.engines.watchdog import POLL_S, Watchdog
from dinomed3d.inference.cohort.events import (
    Event,
    ModelOpened,
    WorkerFailed,
)
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.commands.pipe_ends import unless_hung_up
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.allocator import KEEP_FREED_MEMORY

_START = """
import sys
sys.path[:] = [path for path in sys.path if path not in ("", ".")]  # no code from the folder of the scans
from dinomed3d.inference.cohort.engines.child_process import work
sys.exit(work())
"""


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
        raise UserError(ended_early(self.process.wait(), self.spec))

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
            while stdout.readline() not in (READY, b""):
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


def ended_early(code: int, spec: PredictSpec, *, hangs: bool = False) -> str:
    """Why nothing was predicted by a process that ended, or hung, while it loaded the model."""
    if hangs:
        return (
            f"the worker process has not loaded the model within {spec.stall_minutes:g} minutes; is the disk or "
            "network drive of the model still there? --stall-minutes sets the time"
        )
    return (
        f"the worker process ended ({exit_reason(code)}) before it had loaded the model; see the messages "
        "above. Too little memory can be the cause; --engine threads works without a second process"
    )
