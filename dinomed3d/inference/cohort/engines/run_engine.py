"""Which engine predicts the cases; the imports of those that are not chosen are left out."""

from __future__ import annotations

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.engines.process_engine import supervise
from dinomed3d.inference.cohort.engines.worker_process import WorkerProcess
from dinomed3d.inference.cohort.events import ProgressCallback
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model


def run_engine(
    model: Model,
    spec: PredictSpec,
    cases: list[Case],
    on_event: ProgressCallback,
    worker: WorkerProcess | None,
) -> None:
    """Predict cases with the engine of the spec; `worker` is that of the engine process."""
    if not cases:
        return
    if worker is not None:
        supervise(model, spec, cases, on_event, worker)
    elif spec.engine == "threads":
        from dinomed3d.inference.cohort.engines.threads_engine import run_in_threads

        run_in_threads(model, spec, cases, on_event)
    else:
        from dinomed3d.inference.cohort.engines.ray_engine import run_on_ray

        run_on_ray(model, spec, cases, on_event)
