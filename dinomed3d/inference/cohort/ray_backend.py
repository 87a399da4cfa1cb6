"""The engine `ray`: workers on the machines of a Ray cluster, each with the model in its memory.

Input, output and model must be reachable under the same paths from all machines. A worker that dies
costs at most the case it was working on, and that only if it takes a second worker down as well.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker_process import fail
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.errors import UserError

ProgressCallback = Callable[[dict[str, Any]], None]
LOADING_S = 1800


class CaseWorker:
    """What runs on a machine of the cluster."""

    def load(self, spec: dict[str, Any]) -> dict[str, Any]:
        """Load the model; what the user must mend comes back as {"error": ...}."""
        from dinomed3d.inference.cohort.worker import Worker
        from dinomed3d.inference.models.model import open_model

        asked = PredictSpec.from_json(spec)
        try:
            model = open_model(Path(asked.model), folds=asked.folds, checkpoint=asked.checkpoint)
            self.worker = Worker(model, asked)
        except UserError as error:
            return {"error": str(error)}
        return {"pid": os.getpid()}

    def do(self, case: dict[str, Any]) -> dict[str, Any]:
        """Do one case and give its last event."""
        events: list[dict[str, Any]] = []
        try:
            self.worker.run([Case.from_json(case)], events.append, overlap=False)
        except UserError as error:
            return {"event": "error", "message": str(error)}
        return next(event for event in events if event["event"] == "end")


def run_cluster(
    model: Model, spec: PredictSpec, cases: Sequence[Case], tell: ProgressCallback
) -> None:
    """Have all cases done by `spec.workers` workers; each has a record in the end.

    A cluster is the one named by RAY_ADDRESS, or one of this machine's own processes.

    Args:
        model: as opened here, for the records of cases that take their workers down.
        spec: its paths are reachable from all machines.
        cases: to do.
        tell: told as `worker` tells, and {"event": "worker", "pid": ...} for each worker that is ready.

    Raises:
        UserError: Ray is not installed, or the model cannot be used.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            "--engine ray needs Ray, which is not installed: pip install 'dinomed3d[ray]', or use --engine process"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        # on this machine it is told how many workers fit; a cluster knows by itself
        local = None if os.environ.get("RAY_ADDRESS") else max(spec.workers, os.cpu_count() or 1)
        ray.init(num_cpus=local, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)  # fmt: skip
    try:
        _hand_out(ray, model, _placed(ray, spec), cases, tell)
    finally:
        if ours:
            ray.shutdown()


def _placed(ray: Any, spec: PredictSpec) -> PredictSpec:
    """The same for machines that have other current folders, and for what the cluster has.

    Raises:
        UserError: it cannot have so many workers.
    """
    there = ray.cluster_resources()
    device = spec.device
    if device == "auto":
        device = "cuda" if there.get("GPU", 0) >= 1 else "cpu"
    kind = "GPU" if device == "cuda" else "CPU"
    if there.get(kind, 0) < spec.workers:
        raise UserError(
            f"--workers {spec.workers} need as many {kind}s, and the Ray cluster has {there.get(kind, 0):g}; "
            "use fewer workers, or --device cpu"
        )
    paths = {name: os.path.abspath(getattr(spec, name)) for name in ("source", "out", "model")}
    return replace(spec, device=device, **paths)


def _hand_out(
    ray: Any, model: Model, spec: PredictSpec, cases: Sequence[Case], tell: ProgressCallback
) -> None:
    gpus = 1 if spec.device == "cuda" else 0
    actor = ray.remote(num_cpus=1, num_gpus=gpus, max_restarts=0)(CaseWorker)
    waiting = list(cases)
    suspects: set[str] = set()
    loading: dict[Any, Any] = {}  # what is awaited -> the worker
    working: dict[Any, tuple[Any, Case]] = {}

    def hire() -> None:
        worker = actor.remote()
        loading[worker.load.remote(spec.to_json())] = worker

    for _ in range(min(spec.workers, len(waiting))):
        hire()
    died_early = 0
    while working or (waiting and loading):
        ready, _ = ray.wait(
            [*loading, *working], num_returns=1, timeout=None if working else LOADING_S
        )
        if not ready:
            raise UserError(
                f"no worker of the Ray cluster has loaded the model within {LOADING_S // 60} minutes; is the cluster "
                "busy with other work?"
            )
        (ended,) = ready
        worker = loading.pop(ended, None)
        if worker is not None:
            try:
                answer = ray.get(ended)
            except ray.exceptions.RayError as error:
                died_early += 1
                if died_early > spec.workers:
                    raise UserError(
                        f"workers die before they have loaded the model ({type(error).__name__}); lack of memory "
                        "does this: use fewer --workers"
                    ) from error
                hire()
                continue
            if "error" in answer:
                raise UserError(answer["error"])
            tell({"event": "worker", "pid": answer["pid"]})
        else:
            worker, case = working.pop(ended)
            try:
                answer = ray.get(ended)
                if answer["event"] == "error":
                    raise UserError(answer["message"])
                tell(answer)
            except ray.exceptions.RayError:
                if case.id in suspects:
                    fail(case, None, model, spec, tell)
                else:
                    suspects.add(case.id)
                    waiting.append(case)
                if waiting:
                    hire()
                continue
        if waiting:
            case = waiting.pop(0)
            tell({"event": "start", "case": case.id})
            working[worker.do.remote(case.to_json())] = (worker, case)
