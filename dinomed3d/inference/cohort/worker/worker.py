"""Reads, predicts and writes cases, three of them at the same time.

While one case is in the network, the next is read and preprocessed and the last is written, each on a
thread of its own. An error in a case is written into its record, and the other cases continue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.events import CaseStarted, CaseStep, ProgressCallback
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.case_input import read_input, take_volume
from dinomed3d.inference.cohort.worker.case_output import CaseOutput
from dinomed3d.inference.cohort.worker.case_prediction import predict_mask
from dinomed3d.inference.cohort.worker.case_task import INTERRUPTED, CaseTask
from dinomed3d.inference.cohort.worker.footprint import peak_resident
from dinomed3d.inference.cohort.worker.loaded_models import LoadedModels
from dinomed3d.inference.cohort.worker.memory_budget import MemoryBudget
from dinomed3d.inference.cohort.worker.progress import signs
from dinomed3d.inference.models.model import Model
from dinomed3d.runtime.errors import UserError


class Worker:
    """A model in memory, and the steps of a case."""

    def __init__(self, model: Model, spec: PredictSpec) -> None:
        """Load the networks of all folds, and measure the memory they take.

        Raises:
            UserError: the model or the device cannot be used.
        """
        self.model = model
        self.models = LoadedModels(model, spec)
        self.output = CaseOutput(self.models)
        self.device = self.models.device

    def run(
        self, cases: Iterable[Case], on_event: ProgressCallback, *, overlap: bool = True
    ) -> None:
        """Predict cases; every one of them has a record in the end.

        Args:
            cases: in the order in which they are predicted.
            on_event: receives events, from any thread.
            overlap: read the next case while one is in the network.

        Raises:
            KeyboardInterrupt: passed on, after the case that is being written is complete.
        """
        self.models.on_pass(signs(on_event))
        budget = MemoryBudget(max(0, self.models.limit - self.models.base))
        reader, writer = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "writer")
        reading: list[Future[CaseTask]] = []
        written: Future[None] | None = None
        remaining = iter(cases)

        def read_next() -> None:
            case = next(remaining, None)
            if case is not None:
                reading.append(reader.submit(self.read, case, budget, on_event))

        with peak_resident() as peak_gib:
            try:
                read_next()
                while reading:
                    if overlap:
                        read_next()
                    task = reading.pop(0).result()
                    self.predict(task, on_event)
                    if written is not None:
                        written.result()
                    written = writer.submit(self.write, task, budget, peak_gib, on_event)
                    if not overlap:
                        written.result()
                        read_next()
            finally:
                budget.close()
                reader.shutdown(wait=True, cancel_futures=True)
                writer.shutdown(wait=True)
        if written is not None:
            written.result()

    def read(self, case: Case, budget: MemoryBudget, on_event: ProgressCallback) -> CaseTask:
        """Read and preprocess a case, once there is memory for it."""
        task = CaseTask(case, on_step=lambda step, ended: on_event(CaseStep(case.id, step, ended)))
        on_event(CaseStarted(case.id))
        read_input(task, self.models, budget)
        return task

    def predict(self, task: CaseTask, on_event: ProgressCallback) -> None:
        """Predict a preprocessed case."""
        predict_mask(task, self.models, on_event)

    def write(
        self,
        task: CaseTask,
        budget: MemoryBudget,
        peak_gib: Callable[[], float],
        on_event: ProgressCallback,
    ) -> None:
        """Write mask, preview and, last, the record; release the memory.

        Raises:
            UserError: nothing can be written to the output any more.
        """
        try:
            if task.reason != INTERRUPTED:
                self.output.write(task, peak_gib, on_event)
        except OSError as error:
            raise UserError(
                f"-o {self.output.out}: cannot be written to any more ({error.strerror or error}); finished cases "
                "are complete, and the same command goes on from there"
            ) from error
        finally:
            if task.probabilities is not None:
                task.probabilities.discard()  # does nothing to a finished file
            task.volume = task.prepared = task.segmentation = task.probabilities = None
            if task.need is not None:
                budget.release(task.need.peak)

    def segment(self, task: CaseTask, on_event: ProgressCallback) -> None:
        """Segment the volume of a task that is in memory; nothing is written, an error is the task's reason."""
        take_volume(task, self.models)
        self.predict(task, on_event)
