"""The engine `ray`: workers on the machines of a Ray cluster, each with the model in memory.

Input, output and model must be reachable under the same paths from all machines. If a worker dies,
its case is tried once more with another worker; if that dies too, the case has failed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

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

LOADING_S = 1800
"""Longest time until a worker has loaded the model."""


class CaseWorker:
    """A Ray actor: one worker on a machine of the cluster."""

    def load(self, spec: PredictSpec) -> WorkerReady | WorkerFailed:
        """Load the model."""
        from dinomed3d.inference.cohort.worker import Worker
        from dinomed3d.inference.models.model import open_model

        try:
            model = open_model(Path(spec.model), folds=spec.folds, checkpoint=spec.checkpoint)
            self.worker = Worker(model, spec)
        except UserError as error:
            return WorkerFailed(str(error))
        return WorkerReady(os.getpid())

    def predict(self, case: Case) -> CaseEnded | WorkerFailed:
        """Predict one case."""
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
        _Dispatcher(ray, model, _for_cluster(ray, spec), cases, on_event).run()
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
    paths = {name: os.path.abspath(getattr(spec, name)) for name in ("source", "out", "model")}
    return replace(spec, device=device, **paths)


class _Dispatcher:
    """Gives cases to workers, and replaces workers that die."""

    def __init__(
        self,
        ray: Any,
        model: Model,
        spec: PredictSpec,
        cases: Sequence[Case],
        on_event: ProgressCallback,
    ) -> None:
        self.ray, self.model, self.spec, self.on_event = ray, model, spec, on_event
        gpus = 1 if spec.device == "cuda" else 0
        self.actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(CaseWorker)
        self.waiting = list(cases)
        self.suspects: set[str] = set()  # cases whose worker died
        self.loading: dict[Any, Any] = {}  # pending result -> worker
        self.working: dict[Any, tuple[Any, Case]] = {}
        self.died_early = 0

    def run(self) -> None:
        """Work until every case has a record."""
        for _ in range(min(self.spec.workers, len(self.waiting))):
            self._start_worker()
        while self.working or (self.waiting and self.loading):
            timeout = None if self.working else LOADING_S
            pending = [*self.loading, *self.working]
            ready, _ = self.ray.wait(pending, num_returns=1, timeout=timeout)
            if not ready:
                raise UserError(
                    f"--engine ray: no worker has loaded the model within {LOADING_S // 60} minutes; is the cluster "
                    "busy with other work?"
                )
            worker = self._finish(ready[0])
            if worker is None:
                if self.waiting:
                    self._start_worker()
            elif self.waiting:
                case = self.waiting.pop(0)
                self.on_event(CaseStarted(case.id))
                self.working[worker.predict.remote(case)] = (worker, case)

    def _start_worker(self) -> None:
        worker = self.actor.remote()
        self.loading[worker.load.remote(self.spec)] = worker

    def _finish(self, result: Any) -> Any:
        """Take one result; gives the worker that is free now, None if it has died."""
        worker, case = (
            (self.loading.pop(result), None) if result in self.loading else self.working.pop(result)
        )
        try:
            event = self.ray.get(result)
        except self.ray.exceptions.RayError as error:
            self._died(case, error)
            return None
        if isinstance(event, WorkerFailed):
            raise UserError(event.message)
        self.on_event(event)
        return worker

    def _died(self, case: Case | None, error: Exception) -> None:
        if case is None:
            self.died_early += 1
            if self.died_early > self.spec.workers:
                raise UserError(
                    f"--engine ray: workers die before they have loaded the model ({type(error).__name__}), perhaps "
                    "for lack of memory; use fewer --workers"
                ) from error
        elif case.id in self.suspects:
            fail(case, None, self.model, self.spec, self.on_event)
        else:
            self.suspects.add(case.id)
            self.waiting.append(case)
