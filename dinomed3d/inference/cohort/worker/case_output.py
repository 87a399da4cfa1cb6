"""From the mask of a case to its files: mask, preview and what else is asked for, and last of all the record."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import torch

from dinomed3d import __version__
from dinomed3d.inference.cohort.events import CaseEnded, ProgressCallback
from dinomed3d.inference.cohort.outputs.deliverables import planned
from dinomed3d.inference.cohort.outputs.describe import (
    describe_inputs,
    describe_model,
    describe_reading,
)
from dinomed3d.inference.cohort.outputs.record import Record, write_record
from dinomed3d.inference.cohort.outputs.remove_results import remove_results, write_failure
from dinomed3d.inference.cohort.worker.case_task import CaseTask
from dinomed3d.inference.cohort.worker.footprint import GIB
from dinomed3d.inference.cohort.worker.loaded_models import LoadedModels
from dinomed3d.inference.cohort.worker.progress import signs
from dinomed3d.inference.cohort.worker.results import describe_localizing, write_results
from dinomed3d.inference.report.quality import TrainingRange


class CaseOutput:
    """Writes the cases of a run into its output folder."""

    def __init__(self, models: LoadedModels) -> None:
        """Take what every record of the run says."""
        self.models = models
        self.out = Path(models.spec.out)
        self.notes = list(models.notes())
        self.training = TrainingRange.of(models.model)

    def write(
        self, task: CaseTask, peak_gib: Callable[[], float], on_event: ProgressCallback
    ) -> None:
        """Write the results of a case and its record, or the record of its failure.

        Raises:
            OSError: nothing can be written any more, which is no fault of the case.
        """
        case, record = task.case.id, self.describe(task)
        if task.reason is None:
            with task.step("write"):
                record |= self._write_results(task, record, on_event)
        record |= {
            "seconds": task.seconds,
            "peak_memory_gib": round(peak_gib(), 2),
            "reason": task.reason,
        }
        if task.need is not None:
            estimated = (self.models.base + task.need.peak) / GIB
            record |= {"estimated_memory_gib": round(estimated, 2), "splits": task.need.splits}
        if task.reason is None:
            write_record(self.out, record)
        else:
            trace = {} if task.trace is None else {"trace": task.trace}
            write_failure(self.out, record | {"status": "failed"} | trace)
        on_event(CaseEnded(case, task.reason, task.seconds))

    def _write_results(self, task: CaseTask, record: Record, on_event: ProgressCallback) -> Record:
        """Write everything but the final record, whose entries about the results it gives."""
        model, spec, case = self.models.model, self.models.spec, task.case.id
        remove_results(self.out, case)
        assert task.volume is not None
        files = planned(case, task.volume.grid.ending, model, spec)
        write_record(self.out, record | files | {"status": "begun"})
        if task.probabilities is not None:
            task.probabilities.finish(signs(on_event))
        written = write_results(task, model, spec, self.training)
        if self.models.localizer is not None:
            written |= describe_localizing(task, spec, written)
        return written

    def describe(self, task: CaseTask) -> Record:
        """The entries of a record that are known before anything is written."""
        models = self.models
        channels = models.model.channels
        return {
            "case": task.case.id,
            "status": "done",
            "reason": None,
            "inputs": task.inputs or describe_inputs(task.case, channels),
            "read_as": describe_reading(task.case, channels),
            "notes": [
                *self.notes,
                *task.case.notes,
                *(task.volume.notes if task.volume else []),
                *task.notes,
            ],
            "model": describe_model(models.model),
            "settings": models.spec.settings,
            "device": str(models.device),
            "precision": str(models.precision or torch.float32).removeprefix("torch."),
            "versions": {
                "dinomed3d": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }
