"""The record of a case that has failed without its worker's doing: the worker hung, or died."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.events import CaseEnded, ProgressCallback
from dinomed3d.inference.cohort.outputs.describe import failed_record
from dinomed3d.inference.cohort.outputs.remove_results import write_failure
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.models.model import Model


def give_up(
    case: Case, reason: str, model: Model, spec: PredictSpec, on_event: ProgressCallback
) -> None:
    """Record a case that has failed without its worker's doing."""
    write_failure(Path(spec.out), failed_record(case, reason, model, spec))
    on_event(CaseEnded(case.id, reason, {}))


def fail(
    case: Case, code: int | None, model: Model, spec: PredictSpec, on_event: ProgressCallback
) -> None:
    """Record a case whose process died twice."""
    reason = (
        f"its worker process ended twice ({exit_reason(code)}), the second time with this case alone; lower "
        "--memory-limit, or see the log"
    )
    give_up(case, reason, model, spec, on_event)


def exit_reason(code: int | None) -> str:
    """An exit code in words; None where it is not known."""
    if code in (None, -9, 137):
        return "killed, perhaps for lack of memory"
    assert code is not None
    return f"signal {-code}" if code < 0 else f"exit code {code}"
