"""From the files of a case to the network's input: its memory estimated, read, reoriented, preprocessed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.outputs.describe import describe_inputs
from dinomed3d.inference.cohort.worker import memory_need
from dinomed3d.inference.cohort.worker.case_task import INTERRUPTED, CaseTask
from dinomed3d.inference.cohort.worker.loaded_models import LoadedModels
from dinomed3d.inference.cohort.worker.memory_budget import MemoryBudget
from dinomed3d.inference.io.image import Grid, read_case, read_grid
from dinomed3d.inference.io.orientation import Reorientation
from dinomed3d.inference.nnunet.header_units import note_on_units, spacing_as_trained
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.inference.nnunet.preprocess import prepare


def read_input(task: CaseTask, models: LoadedModels, budget: MemoryBudget) -> None:
    """Read and preprocess a case, once there is memory for it; an error is the task's reason."""
    case, channels = task.case, models.model.channels
    with task.step("estimate"):
        task.inputs = describe_inputs(case, channels)
        planned = len(models.plan.channels)
        one_file = len(case.scans) < planned
        grid = read_grid(case.scans[0], channels=planned if one_file else 1)
        need = _estimate(task, models, grid, case.scans[0].ending)
    if task.reason is not None:
        return
    try:
        budget.acquire(need.peak)
    except InterruptedError:
        task.reason = INTERRUPTED
        return
    task.need = need
    with task.step("read"):
        task.volume = read_case(case, channels)
        if describe_inputs(case, channels) != task.inputs:
            raise CaseError(
                "its files changed while they were read; try again once they are complete"
            )
    if task.reason is None:
        with task.step("preprocess"):
            _preprocess(task, models)


def take_volume(task: CaseTask, models: LoadedModels) -> None:
    """Preprocess the volume of a task that is in memory already; an error is the task's reason."""
    assert task.volume is not None
    grid = task.volume.grid
    with task.step("estimate"):
        task.need = _estimate(task, models, grid, grid.ending)
    if task.reason is None:
        with task.step("preprocess"):
            _preprocess(task, models)


def as_model_sees(
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


def _estimate(
    task: CaseTask, models: LoadedModels, grid: Grid, ending: str
) -> memory_need.MemoryNeed:
    """The memory of a case, also while the localizer predicts and the model's input waits."""
    shape, spacing_mm = grid.shape_zyx, spacing_as_trained(grid, models.plan)
    spec, main, limit = models.spec, models.main, models.limit
    need = memory_need.estimate(
        shape, spacing_mm, main.plan, main.footprint, limit, spec=spec, ending=ending
    )
    if models.first is not None:
        first = memory_need.estimate(
            shape,
            spacing_as_trained(grid, models.first.plan),
            models.first.plan,
            replace(models.first.footprint, base=models.base),
            limit,
            spec=replace(spec, dicom_seg=False, save_probabilities=None),
            ending=ending,
        )
        task.first_splits = first.splits
        need = replace(need, peak=max(need.peak, first.peak))
    if models.localizer is None:
        return need
    waiting = memory_need.input_bytes(shape, spacing_mm, main.plan)
    coarse = memory_need.estimate(
        shape,
        spacing_as_trained(grid, models.localizer.plan),
        models.localizer.plan,
        models.localizer_footprint,
        limit - waiting,
        spec=replace(spec, dicom_seg=False),
        ending=ending,
    )
    task.localizer_splits = coarse.splits
    return replace(need, peak=max(need.peak, coarse.peak + waiting))


def _preprocess(task: CaseTask, models: LoadedModels) -> None:
    """Make the input of the model, of a cascade that of its first one."""
    assert task.volume is not None
    grid = task.volume.grid
    if models.spec.orientation is not None:
        task.reorientation = Reorientation.to(models.spec.orientation, grid)
    elif models.plan.reoriented_by is not None:
        task.reorientation = Reorientation.to("RAS", grid, like=models.plan.reoriented_by)
    task.spacing = spacing_as_trained(grid, models.plan)
    task.volume.notes += note_on_units(grid, models.plan)
    # of a cascade the second model's input waits for the labels of the first
    plan = models.plan if models.first is None else models.first.plan
    task.prepared = prepare(*as_model_sees(task, plan), plan, device=models.device)
