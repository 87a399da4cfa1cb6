"""The process that predicts: it reads, predicts and writes cases, three of them at the same time.

While one case is in the network, the next is read and preprocessed and the last is written, each on a
thread of its own. An error in a case is written into its record, and the other cases continue.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d import __version__
from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort import memory
from dinomed3d.inference.cohort.case_task import CaseTask
from dinomed3d.inference.cohort.deliverables import planned
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseProgress,
    CaseStarted,
    CaseStep,
    ProgressCallback,
)
from dinomed3d.inference.cohort.loaded_model import LoadedModel
from dinomed3d.inference.cohort.localizer import Localizer, describe_localizing
from dinomed3d.inference.cohort.memory_budget import MemoryBudget
from dinomed3d.inference.cohort.record import (
    Record,
    describe_inputs,
    describe_model,
    describe_reading,
    remove_results,
    write_failure,
    write_record,
)
from dinomed3d.inference.cohort.results import write_results
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.watchdog import signs
from dinomed3d.inference.io.image import Grid, read_case, read_grid
from dinomed3d.inference.io.orientation import Reorientation
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.models.model_files import digest_of
from dinomed3d.inference.models.postprocessing import Steps, check_labels
from dinomed3d.inference.nnunet.build_network import has_trainer
from dinomed3d.inference.nnunet.ensemble_files import EnsembleFiles, Geometry
from dinomed3d.inference.nnunet.header_units import note_on_units, spacing_as_trained
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.inference.nnunet.postprocess import keep_largest
from dinomed3d.inference.nnunet.preprocess import Prepared, prepare
from dinomed3d.inference.nnunet.probabilities import ProbabilityFile
from dinomed3d.inference.nnunet.segment import Segmentation, segment
from dinomed3d.inference.report.quality import TrainingRange
from dinomed3d.runtime.counted import counted
from dinomed3d.runtime.device import choose_device
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.out_of_memory import ran_out_of_memory

INTERRUPTED = "interrupted"
"""Reason of a case that was not begun because the run ends."""


class Worker:
    """A model in memory, and the steps of a case."""

    def __init__(self, model: Model, spec: PredictSpec) -> None:
        """Load the networks of all folds, and measure the memory they take.

        Raises:
            UserError: the model or the device cannot be used.
        """
        self.model = model
        self.spec = spec
        self.out = Path(spec.out)
        self.device = torch.device(choose_device(spec.device))
        self.precision = choose_precision(spec.precision, model.trainer, self.device)
        self.notes = list(_notes(model))
        if spec.postprocessing_steps is not None:
            known = [value for values in model.mask_values.values() for value in values]
            check_labels(spec.postprocessing_steps, known, spec.postprocessing or "of the model")
        self.loaded = self._load(model)
        self.first = None if model.previous is None else self._load(model.previous)
        self.plan = self.loaded.plan
        self.localizer = self._load_localizer()
        self.limit = memory.limit_bytes(spec.memory_limit_gib)
        # all networks are in memory by now
        for loaded in filter(None, (self.first, self.loaded)):
            loaded.measure(self.limit)
        self.footprint = self.loaded.footprint
        self.training = TrainingRange.of(model)
        if self.localizer is not None:
            coarse = memory.measure(self.localizer.try_window)
            self.coarse_footprint = replace(coarse, base=self.footprint.base)

    def _load(self, model: Model) -> LoadedModel:
        """Load a model, or the first one of a cascade, with the options of the run."""
        return LoadedModel(
            model,
            mirroring=self.spec.mirroring,
            device=self.device,
            precision=choose_precision(self.spec.precision, model.trainer, self.device),
        )

    def _load_localizer(self) -> Localizer | None:
        """Load the coarse model, if there is one.

        Raises:
            UserError: it cannot be used, or is another one than at the start of the run.
        """
        if self.spec.localizer is None:
            return None
        path = Path(self.spec.localizer)
        if digest_of(path) != self.spec.localizer_digest:
            raise UserError(
                f"--localizer {path}: has changed since the run began; start the run again"
            )
        return Localizer.load(path, self.model, device=self.device, precision=self.precision)

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
        models: list[LoadedModel | Localizer | None] = [self.loaded, self.first, self.localizer]
        for one in models:
            if one is not None:
                one.predictor.on_pass = signs(on_event)
        budget = MemoryBudget(max(0, self.limit - self.footprint.base))
        reader, writer = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "writer")
        reading: list[Future[CaseTask]] = []
        written: Future[None] | None = None
        remaining = iter(cases)

        def read_next() -> None:
            case = next(remaining, None)
            if case is not None:
                reading.append(reader.submit(self.read, case, budget, on_event))

        with memory.peak_resident() as peak_gib:
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
        with task.step("estimate"):
            task.inputs = describe_inputs(case, self.model.channels)
            one_file = len(case.scans) < len(self.plan.channels)
            grid = read_grid(case.scans[0], channels=len(self.plan.channels) if one_file else 1)
            need = self._estimate(grid, case.scans[0].ending, task)
        if task.reason is not None:
            return task
        try:
            budget.acquire(need.peak)
        except InterruptedError:
            task.reason = INTERRUPTED
            return task
        task.need = need
        with task.step("read"):
            task.volume = read_case(case, self.model.channels)
            if describe_inputs(case, self.model.channels) != task.inputs:
                raise CaseError(
                    "its files changed while they were read; try again once they are complete"
                )
        if task.reason is None:
            with task.step("preprocess"):
                self._preprocess(task)
        return task

    def segment(self, task: CaseTask, on_event: ProgressCallback) -> None:
        """Segment the volume of a task that is in memory; nothing is written, an error is the task's reason."""
        assert task.volume is not None
        grid = task.volume.grid
        with task.step("estimate"):
            task.need = self._estimate(grid, grid.ending, task)
        if task.reason is None:
            with task.step("preprocess"):
                self._preprocess(task)
        self.predict(task, on_event)

    def _estimate(self, grid: Grid, ending: str, task: CaseTask) -> memory.MemoryNeed:
        """The memory of a case, also while the localizer predicts and the model's input waits."""
        shape, spacing_mm = grid.shape_zyx, spacing_as_trained(grid, self.plan)
        need = memory.estimate(
            shape, spacing_mm, self.plan, self.footprint, self.limit, spec=self.spec, ending=ending
        )
        if self.first is not None:
            first = memory.estimate(
                shape,
                spacing_as_trained(grid, self.first.plan),
                self.first.plan,
                replace(self.first.footprint, base=self.footprint.base),
                self.limit,
                spec=replace(self.spec, dicom_seg=False, save_probabilities=None),
                ending=ending,
            )
            task.first_splits = first.splits
            need = replace(need, peak=max(need.peak, first.peak))
        if self.localizer is None:
            return need
        waiting = memory.input_bytes(shape, spacing_mm, self.plan)
        coarse = memory.estimate(
            shape,
            spacing_as_trained(grid, self.localizer.plan),
            self.localizer.plan,
            self.coarse_footprint,
            self.limit - waiting,
            spec=replace(self.spec, dicom_seg=False),
            ending=ending,
        )
        task.localizer_splits = coarse.splits
        return replace(need, peak=max(need.peak, coarse.peak + waiting))

    def _preprocess(self, task: CaseTask) -> None:
        assert task.volume is not None
        grid = task.volume.grid
        if self.spec.orientation is not None:
            task.reorientation = Reorientation.to(self.spec.orientation, grid)
        elif self.plan.reoriented_by is not None:
            task.reorientation = Reorientation.to("RAS", grid, like=self.plan.reoriented_by)
        task.spacing = spacing_as_trained(grid, self.plan)
        task.volume.notes += note_on_units(grid, self.plan)
        # of a cascade the second model's input waits for the labels of the first
        plan = self.plan if self.first is None else self.first.plan
        task.prepared = prepare(*_as_models_see(task, plan), plan, device=self.device)

    def predict(self, task: CaseTask, on_event: ProgressCallback) -> None:
        """Predict a preprocessed case, in the region that the localizer finds where there is one."""
        if self.localizer is not None and task.reason is None:
            with task.step("localizer"):
                assert task.volume is not None
                grid, turn = task.volume.grid, task.reorientation
                task.region = self.localizer.find(
                    *_as_models_see(task, self.localizer.plan),
                    spacing_mm=grid.spacing_mm if turn is None else turn.spacing(grid.spacing_mm),
                    splits=task.localizer_splits,
                    margin_mm=self.spec.localizer_margin_mm,
                    progress=_told(task.case.id, "localizer", on_event),
                )
        if self.first is not None and task.reason is None:
            with task.step("first stage"):
                self._predict_first(task, self.first, on_event)
        if task.reason is not None:
            return
        assert task.prepared is not None and task.need is not None
        with task.step("network"):
            task.probabilities = self._probability_file(task, task.prepared)
            file, case = task.probabilities, task.case.id
            task.segmentation = self._segment(
                task,
                self.loaded,
                splits=task.need.splits,
                probabilities=None if file is None else file.add,
                progress=_told(case, "network", on_event),
                region=task.region,
            )
            task.prepared = None
            if task.region is not None:
                task.is_cut = task.region.is_reached(task.segmentation.mask)
            if task.reorientation is not None:
                mask = task.reorientation.undo(task.segmentation.mask)
                task.segmentation = replace(task.segmentation, mask=mask)
        if task.reason is None and self.spec.postprocessing_steps is not None:
            with task.step("postprocess"):
                self._postprocess(task, self.spec.postprocessing_steps)

    def _probability_file(self, task: CaseTask, prepared: Prepared) -> ProbabilityFile | None:
        """The file that the network's probabilities go to, if they are asked for."""
        if self.spec.save_probabilities is None:
            return None
        path = self.out / f"{task.case.id}.{self.spec.save_probabilities}"
        if self.spec.save_probabilities == "b2nd":
            return ProbabilityFile(path, self.plan, prepared, task.reorientation)
        assert task.volume is not None and task.spacing is not None
        of_reader = self.plan.reoriented_by is not None
        geometry = Geometry(
            task.volume.grid, task.reorientation, of_reader=of_reader, spacing=task.spacing
        )
        return EnsembleFiles(path, self.plan, prepared, geometry)

    def _postprocess(self, task: CaseTask, steps: Steps) -> None:
        """Apply nnU-Net's postprocessing to the mask, and note what it removed."""
        assert task.segmentation is not None
        mask = np.ascontiguousarray(task.segmentation.mask)
        for values in steps:
            removed = keep_largest(mask, values)
            names = [name for name, own in self.model.mask_values.items() if set(own) & set(values)]
            task.notes.append(
                f"postprocessing: the largest component of {', '.join(names)} was kept, "
                f"{counted(removed, 'voxel')} removed"
            )
        task.segmentation = replace(task.segmentation, mask=mask)

    def _predict_first(
        self, task: CaseTask, first: LoadedModel, on_event: ProgressCallback
    ) -> None:
        """Predict with the first model of a cascade, and prepare the input of the second from its labels."""
        progress = _told(task.case.id, "first stage", on_event)
        found = self._segment(task, first, splits=task.first_splits, progress=progress)
        first.predictor.clear_cache()
        task.prepared = None
        task.prepared = prepare(
            *_as_models_see(task, self.plan), self.plan, previous=found.mask, device=self.device
        )

    def _segment(
        self, task: CaseTask, loaded: LoadedModel, *, splits: int, **options: Any
    ) -> Segmentation:
        """Predict the volume; where the memory of a GPU is too small, again in more parts.

        Args:
            task: with the model's input.
            loaded: the model.
            splits: number of row ranges.
            options: further ones of `segment`.
        """
        assert task.prepared is not None
        batch = loaded.batch
        while True:
            try:
                return segment(
                    task.prepared,
                    loaded.plan,
                    loaded.predictor,
                    step=self.spec.step_size,
                    splits=splits,
                    batch=batch,
                    **options,
                )
            except RuntimeError as error:  # Apple's GPUs have no class of their own for it
                on_cpu = self.device.type == "cpu"
                if on_cpu or splits >= memory.MAX_SPLITS or not ran_out_of_memory(error):
                    raise
                splits, batch = 2 * splits, 1
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

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
                self._write(task, peak_gib, on_event)
        except OSError as error:
            raise UserError(
                f"-o {self.out}: cannot be written to any more ({error.strerror or error}); finished cases are "
                "complete, and the same command goes on from there"
            ) from error
        finally:
            if task.probabilities is not None:
                task.probabilities.discard()  # does nothing to a finished file
            task.volume = task.prepared = task.segmentation = task.probabilities = None
            if task.need is not None:
                budget.release(task.need.peak)

    def _write(
        self, task: CaseTask, peak_gib: Callable[[], float], on_event: ProgressCallback
    ) -> None:
        case, record = task.case.id, self.describe(task)
        if task.reason is None:
            with task.step("write"):
                remove_results(self.out, case)
                assert task.volume is not None
                files = planned(case, task.volume.grid.ending, self.model, self.spec)
                write_record(self.out, record | files | {"status": "begun"})
                if task.probabilities is not None:
                    task.probabilities.finish(signs(on_event))
                record |= write_results(task, self.model, self.spec, self.training)
                if self.localizer is not None:
                    record |= describe_localizing(task, self.spec, record)
        record |= {
            "seconds": task.seconds,
            "peak_memory_gib": round(peak_gib(), 2),
            "reason": task.reason,
        }
        if task.need is not None:
            estimated = (self.footprint.base + task.need.peak) / memory.GIB
            record |= {"estimated_memory_gib": round(estimated, 2), "splits": task.need.splits}
        if task.reason is None:
            write_record(self.out, record)
        else:
            trace = {} if task.trace is None else {"trace": task.trace}
            write_failure(self.out, record | {"status": "failed"} | trace)
        on_event(CaseEnded(case, task.reason, task.seconds))

    def describe(self, task: CaseTask) -> Record:
        """The entries of a record that are known before anything is written."""
        return {
            "case": task.case.id,
            "status": "done",
            "reason": None,
            "inputs": task.inputs or describe_inputs(task.case, self.model.channels),
            "read_as": describe_reading(task.case, self.model.channels),
            "notes": [
                *self.notes,
                *task.case.notes,
                *(task.volume.notes if task.volume else []),
                *task.notes,
            ],
            "model": describe_model(self.model),
            "settings": self.spec.settings,
            "device": str(self.device),
            "precision": str(self.precision or torch.float32).removeprefix("torch."),
            "versions": {
                "dinomed3d": __version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
            },
        }


def _notes(model: Model) -> Iterator[str]:
    """What every record of a run with this model says."""
    for one in filter(None, (model.previous, model)):
        if not has_trainer(one.trainer):
            yield (
                f"the trainer {one.trainer} is not installed here; the network was built as nnU-Net's own "
                "builds it, and all weights fit"
            )
    if model.previous is not None:
        yield (
            f"cascade: predicted with {model.previous.configuration} (folds {', '.join(model.previous.folds)}) first, "
            f"whose labels are input of {model.configuration}"
        )


def _told(case: str, step: str, on_event: ProgressCallback) -> Callable[[int, int], None]:
    """What tells of the windows of a case in one step."""
    return lambda done, windows: on_event(CaseProgress(case, done, windows, step))


def _as_models_see(
    task: CaseTask, plan: Plan
) -> tuple[list[NDArray[Any]], tuple[float, float, float]]:
    """Channels and spacing of a case as a model was trained with them, reoriented if it wants it."""
    assert task.volume is not None
    channels: list[NDArray[Any]] = list(task.volume.channels)
    spacing = spacing_as_trained(task.volume.grid, plan)
    turn = task.reorientation
    if turn is None:
        return channels, spacing
    return [turn.apply(channel) for channel in channels], turn.spacing(spacing)


def choose_precision(name: str, trainer: str, device: torch.device) -> torch.dtype | None:
    """The precision of autocast, None for float32.

    "auto" is what the model was trained with on such a device: nnU-Net's trainers float16 on CUDA and
    float32 elsewhere, as nnU-Net predicts; ours what `fast_precision` says.
    """
    if name == "auto":
        if trainer == "DinoMed3DTrainer":
            from dinomed3d.training.precision import fast_precision  # takes seconds

            return fast_precision(device)
        return torch.float16 if device.type == "cuda" else None
    return None if name == "float32" else getattr(torch, name)
