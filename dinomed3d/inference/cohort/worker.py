"""One process that works: reads, predicts and writes cases, the three overlapping.

While one case is in the network, the next is read and prepared and the last is written, each on a
thread of its own. Nothing a case does can reach another: whatever goes wrong is written into its
record, and the next case goes on.
"""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d import __version__
from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort import memory
from dinomed3d.inference.cohort.record import (
    Record,
    describe_inputs,
    describe_model,
    retire,
    write_failure,
    write_record,
)
from dinomed3d.inference.cohort.results import write_results
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.io.image import Volume, read_case, read_grid
from dinomed3d.inference.io.orientation import Reorientation
from dinomed3d.inference.models.model import Model, fold_weights
from dinomed3d.inference.nnunet.plan import build_network, has_trainer, read_plan
from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.preprocess import Prepared, prepare
from dinomed3d.inference.nnunet.probabilities import ProbabilityFile
from dinomed3d.inference.nnunet.segment import Segmentation, segment
from dinomed3d.inference.report.quality import TrainingRange
from dinomed3d.runtime.device import choose_device
from dinomed3d.runtime.errors import UserError

INTERRUPTED = "interrupted"
ProgressCallback = Callable[[dict[str, Any]], None]
"""Told what happens: {"event": "start" | "progress" | "end", "case": id, ...}."""


@dataclass
class Task:
    """One case in work."""

    case: Case
    seconds: dict[str, float] = field(default_factory=dict)
    reason: str | None = None
    """Why it failed, once it has."""
    trace: str | None = None
    """Where, if nobody foresaw it."""
    inputs: list[dict[str, Any]] = field(default_factory=list)
    """Its files as they were before they were read."""
    need: memory.Need | None = None
    volume: Volume | None = None
    turn: Reorientation | None = None
    prepared: Prepared | None = None
    segmentation: Segmentation | None = None
    probabilities: ProbabilityFile | None = None

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step; what goes wrong in it is this case's reason and goes no further."""
        start = time.monotonic()
        try:
            yield
        except CaseError as error:
            self.reason = str(error)
        except (MemoryError, torch.OutOfMemoryError) as error:
            self.reason = _no_memory(name, error)
        except Exception as error:  # whatever it is, the other cases go on
            if isinstance(error, RuntimeError) and "memory" in str(error).lower():
                self.reason = _no_memory(name, error)
            else:
                first = (str(error).strip() or "no message").splitlines()[0]
                self.reason = f"unexpected {type(error).__name__} in step '{name}': {first}"
                self.trace = traceback.format_exc()
        self.seconds[name] = round(time.monotonic() - start, 3)


def _no_memory(step: str, error: BaseException) -> str:
    return (
        f"out of memory in step '{step}' ({type(error).__name__}); lower --memory-limit so that it is "
        "done in more parts, or give the machine more"
    )


class Worker:
    """A model in memory, and how cases go through it."""

    def __init__(self, model: Model, spec: PredictSpec) -> None:
        """Load the networks of all folds.

        Raises:
            UserError: the model or the device cannot be used.
        """
        self.model = model
        self.spec = spec
        self.out = Path(spec.out)
        self.plan = read_plan(model)
        self.device = torch.device(choose_device(spec.device))
        self.precision = choose_precision(spec.precision, model.trainer, self.device)
        self.notes: list[str] = []
        if not has_trainer(model.trainer):
            self.notes.append(
                f"the trainer {model.trainer} is not installed here; the network was built as nnU-Net's own "
                "builds it, and all weights fit"
            )
        networks = [build_network(model, fold_weights(model, fold)) for fold in model.folds]
        self.predictor = Predictor(
            networks,
            mirroring=model.mirroring if spec.mirroring else None,
            device=self.device,
            precision=self.precision,
        )
        voxels = int(np.prod(self.plan.patch))
        most = 2**20 if self.device.type == "cpu" else 2**22
        self.batch = max(1, min(16, most // voxels))
        self.limit = memory.limit_bytes(spec.memory_limit_gib)
        windows = torch.zeros((self.batch, len(self.plan.channels), *self.plan.patch))
        places = [(0, 0, 0)] * self.batch
        footprint = memory.measure(lambda: self.predictor(windows.to(self.device), places))
        on_cpu = self.device.type == "cpu"
        if on_cpu:
            self.predictor.lanes = self._lanes(footprint.window)
        self.footprint = replace(
            footprint,
            # what is in the lanes, and what has come out of them and waits
            window=footprint.window * (2 * self.predictor.lanes - 1),
            slice=self.predictor.slice_bytes if on_cpu else 0,
        )
        self.training = TrainingRange.of(model)

    def _lanes(self, window_bytes: int) -> int:
        """How many batches go through the networks side by side: up to four, in a fifth of the memory."""
        if self.predictor.slice_bytes:
            return 1
        fit = [n for n in range(1, 5) if (2 * n - 1) * window_bytes <= self.limit / 5]
        return max(1, min(torch.get_num_threads(), len(fit)))

    def run(self, cases: Iterable[Case], tell: ProgressCallback, *, overlap: bool = True) -> None:
        """Do the cases; every one of them has a record in the end.

        Args:
            cases: to do, in order.
            tell: what is called from any thread.
            overlap: read the next case while one is in work.

        Raises:
            KeyboardInterrupt: passed on, after the case that is being written is written.
        """
        budget = memory.Budget(max(0, self.limit - self.footprint.base))
        reader, writer = ThreadPoolExecutor(1, "reader"), ThreadPoolExecutor(1, "writer")
        waiting: list[Future[Task]] = []
        written: Future[None] | None = None
        coming = iter(cases)

        def read_next() -> None:
            case = next(coming, None)
            if case is not None:
                waiting.append(reader.submit(self.read, case, budget, tell))

        with memory.highest_resident() as highest:
            try:
                read_next()
                while waiting:
                    if overlap:
                        read_next()
                    task = waiting.pop(0).result()
                    self.predict(task, tell)
                    if written is not None:
                        written.result()
                    written = writer.submit(self.write, task, budget, highest, tell)
                    if not overlap:
                        written.result()
                        read_next()
            finally:
                budget.close()
                reader.shutdown(wait=True, cancel_futures=True)
                writer.shutdown(wait=True)
        if written is not None:
            written.result()

    def read(self, case: Case, budget: memory.Budget, tell: ProgressCallback) -> Task:
        """Read and prepare a case, once there is memory for it."""
        task = Task(case)
        tell({"event": "look", "case": case.id})
        with task.step("estimate"):
            task.inputs = describe_inputs(case, self.model.channels)
            one_file = len(case.scans) < len(self.plan.channels)
            grid = read_grid(case.scans[0], channels=len(self.plan.channels) if one_file else 1)
            need = memory.estimate(
                grid.shape_zyx,
                grid.spacing_mm,
                self.plan,
                self.footprint,
                self.limit,
                spec=self.spec,
                ending=case.scans[0].ending,
            )
            task.need = need
        if task.reason is not None:
            return task
        assert task.need is not None
        try:
            budget.enter(task.need.peak)
        except InterruptedError:
            task.need, task.reason = None, INTERRUPTED
            return task
        tell({"event": "start", "case": case.id})
        with task.step("read"):
            task.volume = read_case(case, self.model.channels)
            if describe_inputs(case, self.model.channels) != task.inputs:
                raise CaseError(
                    "its files changed while they were read; try again once they are complete"
                )
        if task.reason is None:
            with task.step("preprocess"):
                self._prepare(task)
        return task

    def _prepare(self, task: Task) -> None:
        assert task.volume is not None
        channels: list[NDArray[Any]] = list(task.volume.channels)
        grid = task.volume.grid
        spacing = grid.spacing_mm
        if self.spec.orientation is not None:
            task.turn = Reorientation.to(self.spec.orientation, grid)
        elif self.plan.turned is not None:
            task.turn = Reorientation.to("RAS", grid, like=self.plan.turned)
        if task.turn is not None:
            channels = [task.turn.apply(channel) for channel in channels]
            spacing = task.turn.spacing(spacing)
        task.prepared = prepare(channels, spacing, self.plan)

    def predict(self, task: Task, tell: ProgressCallback) -> None:
        """Bring a prepared case through the network."""
        if task.reason is not None:
            return
        assert task.prepared is not None and task.need is not None
        with task.step("network"):
            if self.spec.save_probabilities:
                path = self.out / f"{task.case.id}.b2nd"
                task.probabilities = ProbabilityFile(path, self.plan, task.prepared, task.turn)
            task.segmentation = self._segment(task, tell)
            task.prepared = None
            if task.turn is not None:
                mask = task.turn.undo(task.segmentation.mask)
                task.segmentation = replace(task.segmentation, mask=mask)

    def _segment(self, task: Task, tell: ProgressCallback) -> Segmentation:
        """Sweep the volume; where a GPU's memory is too small, once more in more bands."""
        assert task.prepared is not None and task.need is not None
        bands, file, case = task.need.bands, task.probabilities, task.case.id
        while True:
            try:
                return segment(
                    task.prepared,
                    self.plan,
                    self.predictor,
                    step=self.spec.step_size,
                    bands=bands,
                    batch=self.batch if bands == task.need.bands else 1,
                    probabilities=None if file is None else file.add,
                    progress=lambda share: tell(
                        {"event": "progress", "case": case, "share": share}
                    ),
                )
            except torch.OutOfMemoryError:
                if bands >= memory.MOST_BANDS:
                    raise
                bands *= 2
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def write(
        self,
        task: Task,
        budget: memory.Budget,
        highest: Callable[[], float],
        tell: ProgressCallback,
    ) -> None:
        """Write mask, preview and, last, the record; give the memory back.

        Raises:
            UserError: nothing can be written to the output any more.
        """
        try:
            if task.reason == INTERRUPTED:
                return
            record = self.describe(task)
            if task.reason is None:
                assert task.volume is not None and task.segmentation is not None
                volume, segmentation = task.volume, task.segmentation
                with task.step("write"):
                    retire(self.out, task.case.id)
                    write_record(self.out, record | {"status": "begun"})
                    if task.probabilities is not None:
                        task.probabilities.finish()
                    record |= write_results(
                        task.case,
                        volume,
                        segmentation,
                        self.model,
                        self.spec,
                        self.training,
                        task.turn,
                    )
            record |= {
                "seconds": task.seconds,
                "peak_memory_gib": round(highest(), 2),
                **self._estimated(task),
                "reason": task.reason,
            }
            if task.reason is None:
                write_record(self.out, record)
            else:
                trace = {} if task.trace is None else {"trace": task.trace}
                record |= {"status": "failed"} | trace
                write_failure(self.out, record)
            end = {key: record[key] for key in ("status", "reason", "seconds")}
            tell({"event": "end", "case": task.case.id, **end})
        except OSError as error:
            raise UserError(
                f"output {self.out}: cannot be written to any more ({error.strerror or error}); the cases "
                "done until now are complete, and the same command goes on from there"
            ) from error
        finally:
            if task.probabilities is not None:
                task.probabilities.discard()  # of a finished one there is nothing left to remove
            task.volume = task.prepared = task.segmentation = task.probabilities = None
            if task.need is not None:
                budget.leave(task.need.peak)

    def _estimated(self, task: Task) -> Record:
        if task.need is None:
            return {}
        peak = (self.footprint.base + task.need.peak) / memory.GIB
        return {"estimated_memory_gib": round(peak, 2), "bands": task.need.bands}

    def describe(self, task: Task) -> Record:
        """What is known of a case before anything is written."""
        return {
            "case": task.case.id,
            "status": "done",
            "reason": None,
            "inputs": task.inputs or describe_inputs(task.case, self.model.channels),
            "notes": [
                *self.notes,
                *task.case.notes,
                *(task.volume.notes if task.volume else []),
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


def choose_precision(name: str, trainer: str, device: torch.device) -> torch.dtype | None:
    """The precision of autocast, None for float32.

    "auto" is what the model was trained with on such a device: nnU-Net's trainers float16 on CUDA and
    float32 elsewhere, as nnU-Net predicts; ours what `fast_precision` says.
    """
    from dinomed3d.training.precision import fast_precision

    if name == "auto":
        if trainer == "DinoMed3DTrainer":
            return fast_precision(device)
        return torch.float16 if device.type == "cuda" else None
    chosen: dict[str, torch.dtype | None] = {
        "float32": None,
        "bfloat16": torch.bfloat16,
        "float16": torch.float16,
    }
    return chosen[name]
