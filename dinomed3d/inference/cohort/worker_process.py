"""The engine `process`: one process works, another sees to it that its death costs one case at most.

The worker is started with the interpreter itself, not by multiprocessing. It says on its standard
output when it begins and ends a case. If it is killed, by the system for lack of memory for instance,
the cases it had begun are tried once more, each alone in a worker of its own; one that takes that
down as well has failed, and all the others go on.
"""

from __future__ import annotations

import _thread
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.record import failed_record, remove_leftovers, write_failure
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.errors import UserError

ProgressCallback = Callable[[dict[str, Any]], None]
PATIENCE_S = 20
"""In which a worker that is to end finishes what it is writing."""
_START = """
import sys
sys.path[:] = [path for path in sys.path if path not in ("", ".")]  # no code from beside the scans
from dinomed3d.inference.cohort.worker_process import work
sys.exit(work())
"""


@dataclass
class WorkerState:
    """What became of one worker."""

    begun: list[str] = field(default_factory=list)
    """Begun and not ended."""
    ended: set[str] = field(default_factory=set)
    ready: bool = False
    """It had loaded the model."""
    error: str | None = None
    """What the user must mend."""
    code: int = 0


class WorkerProcess:
    """A worker process; it loads what it needs while its first cases are still being looked for."""

    def __init__(self, spec: PredictSpec) -> None:
        """Start it, and have it open the model.

        Raises:
            UserError: no process can be started here.
        """
        # everything it needs for a while goes below one folder, removed here even if it is killed
        self.folder = tempfile.TemporaryDirectory(prefix="dinomed3d-", ignore_cleanup_errors=True)
        place = {name: self.folder.name for name in ("TMPDIR", "TEMP", "TMP")}
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                env=os.environ | place,
            )
        except OSError as error:
            self.folder.cleanup()
            raise UserError(
                f"a second process cannot be started here ({error}); use --engine threads"
            ) from error
        self._give({"spec": spec.to_json()})

    def model(self) -> Model:
        """What it has found the model to be; so the process that waits for it need not load torch.

        Raises:
            UserError: the model cannot be used, or the process ended.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise UserError(_ended_early(self.process.wait()))
        event = json.loads(line)
        if event["event"] == "error":
            raise UserError(event["message"])
        return Model.from_json(event["model"])

    def work(self, job: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Give it its cases; gives its events until it ends."""
        assert self.process.stdout is not None
        self._give(job)
        for line in self.process.stdout:
            yield json.loads(line)
        self.process.wait()

    def _give(self, what: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it has died already: its exit code says so
            self.process.stdin.write(json.dumps(what) + "\n")
            self.process.stdin.flush()

    def end(self) -> None:
        """Let it finish what it is writing, and remove what is left of it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()  # it ends by itself then
        try:
            self.process.wait(timeout=PATIENCE_S + 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.folder.cleanup()


def supervise(
    model: Model,
    spec: PredictSpec,
    cases: Sequence[Case],
    tell: ProgressCallback,
    first: WorkerProcess,
) -> None:
    """Have all cases done by workers, one after the other; each has a record in the end.

    Args:
        model: that `first` has opened.
        spec: what is asked for.
        cases: to do.
        tell: told what happens.
        first: a worker that was started before; it is ended here.

    Raises:
        UserError: no worker can start, or the model cannot be used.
    """
    left = list(cases)
    suspects: list[Case] = []
    worker: WorkerProcess | None = first
    while left or suspects:
        alone = bool(suspects)
        batch = suspects[:1] if alone else left
        if worker is None:
            worker = WorkerProcess(spec)
        life = _run_worker(worker, spec, batch, tell, overlap=not alone)
        worker = None
        if life.error is not None:
            raise UserError(life.error)
        if life.code == 130:
            raise KeyboardInterrupt
        if life.code != 0 and not life.ready:
            raise UserError(_ended_early(life.code))
        if life.code != 0:
            remove_leftovers(Path(spec.out), [case.id for case in batch])
        left = [case for case in left if case.id not in life.ended]
        if alone:
            (suspect,) = batch
            suspects = suspects[1:]
            if suspect.id not in life.ended:
                fail(suspect, life.code, model, spec, tell)
            continue
        suspects = [case for case in left if case.id in life.begun]
        left = [case for case in left if case.id not in life.begun]
        if left and (life.code == 0 or (not suspects and not life.ended)):
            raise UserError(
                f"the worker process ended ({exit_reason(life.code)}) with {len(left)} cases left; see above"
            )


def fail(
    case: Case, code: int | None, model: Model, spec: PredictSpec, tell: ProgressCallback
) -> None:
    """Record a case whose worker died with it, twice."""
    reason = (
        f"the process that worked on it ended twice ({exit_reason(code)}), the second time with this case "
        "alone; lower --memory-limit, or see the log"
    )
    write_failure(Path(spec.out), failed_record(case, reason, model, spec))
    tell({"event": "end", "case": case.id, "status": "failed", "reason": reason, "seconds": {}})


def _run_worker(
    worker: WorkerProcess,
    spec: PredictSpec,
    cases: Sequence[Case],
    tell: ProgressCallback,
    *,
    overlap: bool,
) -> WorkerState:
    life = WorkerState()
    job = {"spec": spec.to_json(), "cases": [case.to_json() for case in cases], "overlap": overlap}
    try:
        for event in worker.work(job):
            _take(event, life, tell)
        life.code = worker.process.returncode
    finally:
        worker.end()
    return life


def _take(event: dict[str, Any], life: WorkerState, tell: ProgressCallback) -> None:
    """One line of a worker."""
    kind = event["event"]
    if kind == "ready":
        life.ready = True
    elif kind == "error":
        life.error = event["message"]
    elif kind != "model":  # of a later worker, and known
        if kind == "look":
            life.begun.append(event["case"])
        elif kind == "end":
            life.ended.add(event["case"])
            if event["case"] in life.begun:
                life.begun.remove(event["case"])
        tell(event)


def _ended_early(code: int) -> str:
    return (
        f"the worker process ended ({exit_reason(code)}) before it had loaded the model; see above. "
        "Lack of memory does this; --engine threads works without a second process"
    )


def exit_reason(code: int | None) -> str:
    """What an exit code says."""
    if code is None:
        return "without a word, perhaps for lack of memory"
    if code in (-9, 137):
        return "killed, perhaps for lack of memory"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def work() -> int:
    """Be the worker: do the cases of a job read from standard input, and say on standard output what happens."""
    lock = threading.Lock()
    # whatever libraries print belongs with the log; events have standard output to themselves
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def tell(event: dict[str, Any]) -> None:
        # a parent that was killed does not listen; that is no fault of the case this process is at, and
        # `_end_with_parent` ends it
        with lock, suppress(BrokenPipeError):
            channel.write(json.dumps(event) + "\n")
            channel.flush()

    try:
        # takes seconds, in which the parent finds the cases
        from dinomed3d.inference.cohort.worker import Worker
        from dinomed3d.inference.models.model import open_model

        spec = PredictSpec.from_json(json.loads(sys.stdin.readline())["spec"])
        model = open_model(Path(spec.model), folds=spec.folds, checkpoint=spec.checkpoint)
        tell({"event": "model", "model": model.to_json()})
        line = sys.stdin.readline()
        if not line:
            return 0  # there was nothing to do
        threading.Thread(target=_end_with_parent, daemon=True).start()
        job = json.loads(line)
        cases = [Case.from_json(case) for case in job["cases"]]
        worker = Worker(model, spec)
        tell({"event": "ready"})
        worker.run(cases, tell, overlap=job["overlap"])
    except UserError as error:
        tell({"event": "error", "message": str(error)})
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _end_with_parent() -> None:
    """End this process once nobody holds the other end of its standard input."""
    while sys.stdin.read(1):
        pass
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGINT)  # wakes the main thread also where it waits
    else:
        _thread.interrupt_main()
    time.sleep(PATIENCE_S)
    os._exit(3)  # files are renamed into place when whole, so nothing half-written can stay
