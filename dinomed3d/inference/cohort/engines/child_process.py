"""What the child process of the engine `process` does: read cases, report events, end with its parent."""

from __future__ import annotations

import _thread
import os
import pickle
import signal
import sys
import threading
import time
from pathlib import Path

from dinomed3d.inference.cohort.events import Event, ModelOpened, WorkerFailed, WorkerReady
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.runtime.commands.pipe_ends import unless_hung_up, wait_for_hang_up
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.terminal_text import print_any_text

READY = b"dinomed3d: events follow\n"
"""Line on standard output before the first event; other modules may print when Python starts."""

PATIENCE_S = 20
"""Time that a child has to finish what it is writing when it must end."""


def work() -> int:
    """Be the child process: read options and cases from standard input, write events to standard output."""
    lock = threading.Lock()
    # whatever libraries print goes to standard error; standard output is for events alone
    channel = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    channel.write(READY)
    print_any_text()

    def on_event(event: Event) -> None:
        # if the parent was killed nobody reads: no fault of the present case, and `_end_with_parent`
        # ends this process
        with lock, unless_hung_up():
            pickle.dump(event, channel)
            channel.flush()

    try:
        # takes seconds, in which the parent searches the cases
        from dinomed3d.inference.cohort.worker.worker import Worker
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
