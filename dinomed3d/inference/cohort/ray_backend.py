"""The engine `ray`: workers on the machines of a Ray cluster, each with the model in memory.

Input, output and model must be reachable under the same paths from all machines. If a worker dies,
Ray starts it again and its case is tried once more; if it dies again, the case has failed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseStarted,
    Event,
    ProgressCallback,
    WorkerFailed,
    WorkerReady,
)
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker_process import fail
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.errors import UserError

if TYPE_CHECKING:
    from dinomed3d.inference.cohort.worker import Worker

LOADING_S = 1800
"""Longest time until a worker has loaded the model."""


class CaseWorker:
    """A Ray actor: one worker on a machine of the cluster, which Ray starts again if it dies."""

    def __init__(self, spec: PredictSpec) -> None:
        self.spec = spec
        self.worker: Worker | None = None

    def load(self) -> WorkerReady | WorkerFailed:
        """Load the model."""
        from dinomed3d.inference.cohort.worker import Worker
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
        events: list[Event] = []
        try:
            self.worker.run([case], events.append, overlap=False)
        except UserError as error:
            return WorkerFailed(str(error))
        return next(event for event in events if isinstance(event, CaseEnded))


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
            '--engine ray needs Ray, which is not installed: pip install ".[ray]", or use --engine process'
        ) from error
    ours = not ray.is_initialized()
    if ours:
        # a cluster knows its resources; on this machine Ray must be told how many workers fit
        local = None if os.environ.get("RAY_ADDRESS") else max(spec.workers, os.cpu_count() or 1)
        ray.init(
            num_cpus=local,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
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


def _distribute(
    ray: Any, model: Model, spec: PredictSpec, cases: Sequence[Case], on_event: ProgressCallback
) -> None:
    """Give each free worker the next case, until every case has a record."""
    gpus = 1 if spec.device == "cuda" else 0
    actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=1)(CaseWorker)
    workers = [actor.remote(spec) for _ in range(min(spec.workers, len(cases)))]
    pending: dict[Any, tuple[Any, Case | None]] = {w.load.remote(): (w, None) for w in workers}
    waiting = list(cases)
    while pending:
        predicting = any(case is not None for _, case in pending.values())
        timeout = None if predicting else LOADING_S
        done, _ = ray.wait(list(pending), num_returns=1, timeout=timeout)
        if not done:
            raise UserError(
                f"--engine ray: no worker has loaded the model within {LOADING_S // 60} minutes; is the cluster busy "
                "with other work?"
            )
        worker, case = pending.pop(done[0])
        try:
            event = ray.get(done[0])
        except ray.exceptions.RayError:  # it died twice
            if case is None:
                continue
            fail(case, None, model, spec, on_event)
        else:
            if isinstance(event, WorkerFailed):
                raise UserError(event.message)
            on_event(event)
        if waiting:
            case = waiting.pop(0)
            on_event(CaseStarted(case.id))
            pending[worker.predict.remote(case)] = (worker, case)
    if waiting:
        raise UserError(
            "--engine ray: all workers die before they have loaded the model, perhaps for lack of memory; use "
            "fewer --workers"
        )
