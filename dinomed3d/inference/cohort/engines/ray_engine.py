"""The engine `ray`: workers on the machines of a Ray cluster, each with the model in memory.

Input, output and model must be reachable under the same paths from all machines. If a worker dies,
Ray starts it again and its case is tried once more; if it dies again, the case has failed. A worker
without a sign of progress is ended, its case has failed, and another one takes its place.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.engines.failed_case import fail, give_up
from dinomed3d.inference.cohort.engines.watchdog import Watchdog
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseStarted,
    Event,
    ProgressCallback,
    WorkerAlive,
    WorkerFailed,
    WorkerReady,
)
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.commands.signals import kept_handlers
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.extras import how_to_install

if TYPE_CHECKING:
    from dinomed3d.inference.cohort.worker.worker import Worker

LOADING_S = 1800
"""Longest time until a worker has loaded the model."""
DEBUGGER = "PYTHONBREAKPOINT"
"""Environment variable that names what `breakpoint()` calls."""
ASKING_S = 30.0
"""How often workers are asked for signs of progress, and how long their answer may take."""


class CaseWorker:
    """A Ray actor: one worker on a machine of the cluster, which Ray starts again if it dies."""

    def __init__(self, spec: PredictSpec) -> None:
        self.spec = spec
        self.worker: Worker | None = None
        self.watchdog: Watchdog | None = None

    def load(self) -> WorkerReady | WorkerFailed:
        """Load the model."""
        from dinomed3d.inference.cohort.worker.worker import Worker
        from dinomed3d.inference.models.model import open_model

        spec = self.spec
        try:
            model = open_model(Path(spec.model), folds=spec.folds, checkpoint=spec.checkpoint)
            self.worker = Worker(model, spec)
        except UserError as error:
            return WorkerFailed(str(error))
        return WorkerReady(os.getpid())

    def predict(self, case: Case) -> CaseEnded | WorkerFailed:
        """Predict one case; a worker that was started again loads the model first."""
        if self.worker is None and isinstance(event := self.load(), WorkerFailed):
            return event
        assert self.worker is not None
        self.watchdog = watchdog = Watchdog(0, [case])
        ended: list[CaseEnded] = []

        def note(event: Event) -> None:
            watchdog.note(event)
            if isinstance(event, CaseEnded):
                ended.append(event)

        try:
            self.worker.run([case], note, overlap=False)
        except UserError as error:
            return WorkerFailed(str(error))
        return ended[0]

    def signs(self) -> int:
        """How many signs of progress the present case has shown; answered while it is predicted."""
        return 0 if self.watchdog is None else self.watchdog.signs


def run_on_ray(
    model: Model, spec: PredictSpec, cases: Sequence[Case], on_event: ProgressCallback
) -> None:
    """Predict cases with `spec.workers` workers; each case has a record in the end.

    The cluster is the one named by RAY_ADDRESS, or one of processes of this machine.

    Args:
        model: as opened here, for the records of cases whose workers die.
        spec: options.
        cases: to predict.
        on_event: receives events, also WorkerReady for each worker.

    Raises:
        UserError: Ray is not installed, or the model cannot be used.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"--engine ray needs Ray, which is not installed; {how_to_install('ray')}; or use --engine process"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        # a cluster knows its resources; on this machine Ray must know how many workers fit
        local = None if os.environ.get("RAY_ADDRESS") else max(spec.workers, os.cpu_count() or 1)
        debugger = os.environ.get(DEBUGGER)
        with kept_handlers():
            ray.init(
                num_cpus=local,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        # Ray's own would stay
        os.environ.pop(DEBUGGER, None)
        os.environ |= {} if debugger is None else {DEBUGGER: debugger}
    try:
        _distribute(ray, model, _for_cluster(ray, spec), cases, on_event)
    finally:
        if ours:
            ray.shutdown()


def _for_cluster(ray: Any, spec: PredictSpec) -> PredictSpec:
    """The same options with absolute paths and a device that the cluster has.

    Raises:
        UserError: it cannot run so many workers.
    """
    resources = ray.cluster_resources()
    device = spec.device
    if device == "auto":
        device = "cuda" if resources.get("GPU", 0) >= 1 else "cpu"
    kind = "GPU" if device == "cuda" else "CPU"
    if resources.get(kind, 0) < spec.workers:
        raise UserError(
            f"--workers {spec.workers}: each needs a {kind}, and the Ray cluster has {resources.get(kind, 0):g}; "
            "use fewer workers, or --device cpu"
        )
    paths = {
        name: os.path.abspath(getattr(spec, name))
        for name in ("source", "out", "model", "localizer")
        if getattr(spec, name) is not None
    }
    return replace(spec, device=device, **paths)


@dataclass
class _Job:
    """What a worker does."""

    worker: Any
    case: Case | None
    """None while it loads the model."""
    watchdog: Watchdog
    signs: int = 0
    """Signs of progress that it has reported."""
    asked: Any = None
    """Its answer to be, to the question how many there are."""

    def ask(self, ray: Any, seconds: float, every_s: float) -> None:
        """Ask for signs of progress, and take the last answer, without waiting for one."""
        if self.asked is not None and ray.wait([self.asked], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):  # it has died, which `predict` reports
                signs = ray.get(self.asked)
                if signs != self.signs:
                    self.signs = signs
                    self.watchdog.note(WorkerAlive())
            self.asked = None
        if self.asked is None:
            self.asked = self.worker.signs.remote()
        self.watchdog.wait(seconds, at_most=2 * every_s)


def _distribute(
    ray: Any, model: Model, spec: PredictSpec, cases: Sequence[Case], on_event: ProgressCallback
) -> None:
    """Give each free worker the next case, until every case has a record."""
    gpus = 1 if spec.device == "cuda" else 0
    actor = ray.remote(
        num_cpus=1,
        num_gpus=gpus,
        max_restarts=-1,
        max_task_retries=1,
        max_concurrency=2,  # it predicts, and answers
    )(CaseWorker)
    pending: dict[Any, _Job] = {}
    waiting = list(cases)

    def start() -> None:
        worker = actor.remote(spec)
        pending[worker.load.remote()] = _Job(worker, None, Watchdog(0, []))

    for _ in range(min(spec.workers, len(cases))):
        start()
    every_s = min(ASKING_S, 15 * spec.stall_minutes or ASKING_S)
    looked = time.monotonic()
    while pending:
        predicting = any(job.case is not None for job in pending.values())
        done, _ = ray.wait(
            list(pending), num_returns=1, timeout=every_s if predicting else LOADING_S
        )
        if not done and not predicting:
            raise UserError(
                f"--engine ray: no worker has loaded the model within {LOADING_S // 60} minutes; is the cluster busy "
                "with other work?"
            )
        if time.monotonic() - looked >= every_s:
            signs = sum(job.signs for job in pending.values())
            for one in _silent_jobs(ray, pending, time.monotonic() - looked, every_s):
                job = pending.pop(one)
                ray.kill(job.worker, no_restart=True)
                assert job.case is not None
                give_up(job.case, job.watchdog.reason("predict"), model, spec, on_event)
                if waiting:
                    start()
            if sum(job.signs for job in pending.values()) > signs:
                on_event(WorkerAlive())
            looked = time.monotonic()
        for one in done:
            if one in pending:
                job = pending.pop(one)
                if _is_free(ray, one, job, model, spec, on_event) and waiting:
                    case = waiting.pop(0)
                    on_event(CaseStarted(case.id))
                    watchdog = Watchdog(spec.stall_minutes, [case])
                    watchdog.note(CaseStarted(case.id))
                    pending[job.worker.predict.remote(case)] = _Job(job.worker, case, watchdog)
    if waiting:
        raise UserError(
            "--engine ray: all workers die before they have loaded the model, perhaps for lack of memory; use "
            "fewer --workers"
        )


def _silent_jobs(
    ray: Any, pending: Mapping[Any, _Job], seconds: float, every_s: float
) -> list[Any]:
    """The jobs whose workers have shown no sign of progress for too long."""
    for job in pending.values():
        if job.case is not None:
            job.ask(ray, seconds, every_s)
    return [one for one, job in pending.items() if job.case is not None and job.watchdog.is_over]


def _is_free(
    ray: Any, one: Any, job: _Job, model: Model, spec: PredictSpec, on_event: ProgressCallback
) -> bool:
    """Take the result of a job; whether its worker can be given another.

    Raises:
        UserError: the worker reports one.
    """
    try:
        event = ray.get(one)
    except ray.exceptions.RayError:  # it died twice
        if job.case is None:
            return False
        fail(job.case, None, model, spec, on_event)
        return True
    if isinstance(event, WorkerFailed):
        raise UserError(event.message)
    on_event(event)
    return True
