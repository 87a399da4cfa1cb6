"""From the network's input of a case to its mask: localizer, first model of a cascade, network, postprocessing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dinomed3d.inference.cohort.events import ProgressCallback
from dinomed3d.inference.cohort.worker.case_input import as_model_sees
from dinomed3d.inference.cohort.worker.case_task import CaseTask
from dinomed3d.inference.cohort.worker.loaded_model import LoadedModel
from dinomed3d.inference.cohort.worker.loaded_models import LoadedModels
from dinomed3d.inference.cohort.worker.localizer import Localizer
from dinomed3d.inference.cohort.worker.memory_need import MAX_SPLITS
from dinomed3d.inference.cohort.worker.progress import windows_done
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.models.postprocessing import Steps
from dinomed3d.inference.nnunet.ensemble_files import EnsembleFiles, Geometry
from dinomed3d.inference.nnunet.postprocess import keep_largest
from dinomed3d.inference.nnunet.preprocess import Prepared, prepare
from dinomed3d.inference.nnunet.probabilities import ProbabilityFile
from dinomed3d.inference.nnunet.segment import Segmentation, segment
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory
from dinomed3d.runtime.messages.counted import counted


def predict_mask(task: CaseTask, models: LoadedModels, on_event: ProgressCallback) -> None:
    """Predict a preprocessed case, in the region that the localizer finds where there is one.

    An error is the task's reason; nothing is done where there is one already.
    """
    if models.localizer is not None and task.reason is None:
        with task.step("localizer"):
            _localize(task, models, models.localizer, on_event)
    if models.first is not None and task.reason is None:
        with task.step("first stage"):
            _predict_first(task, models, models.first, on_event)
    if task.reason is None:
        with task.step("network"):
            _predict(task, models, on_event)
    if task.reason is None and models.spec.postprocessing_steps is not None:
        with task.step("postprocess"):
            _postprocess(task, models.model, models.spec.postprocessing_steps)


def _localize(
    task: CaseTask, models: LoadedModels, localizer: Localizer, on_event: ProgressCallback
) -> None:
    """Find the region that is predicted."""
    assert task.volume is not None
    grid, turn = task.volume.grid, task.reorientation
    task.region = localizer.find(
        *as_model_sees(task, localizer.plan),
        spacing_mm=grid.spacing_mm if turn is None else turn.spacing(grid.spacing_mm),
        splits=task.localizer_splits,
        margin_mm=models.spec.localizer_margin_mm,
        progress=windows_done(task.case.id, "localizer", on_event),
    )


def _predict_first(
    task: CaseTask, models: LoadedModels, first: LoadedModel, on_event: ProgressCallback
) -> None:
    """Predict with the first model of a cascade, and prepare the input of the second from its labels."""
    progress = windows_done(task.case.id, "first stage", on_event)
    found = _segment(task, models, first, splits=task.first_splits, progress=progress)
    first.predictor.clear_cache()
    task.prepared = None
    task.prepared = prepare(
        *as_model_sees(task, models.plan), models.plan, previous=found.mask, device=models.device
    )


def _predict(task: CaseTask, models: LoadedModels, on_event: ProgressCallback) -> None:
    """Predict with the model itself, on the stored grid in the end."""
    assert task.prepared is not None and task.need is not None
    file = task.probabilities = _probability_file(task, models, task.prepared)
    task.segmentation = _segment(
        task,
        models,
        models.main,
        splits=task.need.splits,
        probabilities=None if file is None else file.add,
        progress=windows_done(task.case.id, "network", on_event),
        region=task.region,
    )
    task.prepared = None
    if task.region is not None:
        task.is_cut = task.region.is_reached(task.segmentation.mask)
    if task.reorientation is not None:
        mask = task.reorientation.undo(task.segmentation.mask)
        task.segmentation = replace(task.segmentation, mask=mask)


def _probability_file(
    task: CaseTask, models: LoadedModels, prepared: Prepared
) -> ProbabilityFile | None:
    """The file that the network's probabilities go to, if they are asked for."""
    ending = models.spec.save_probabilities
    if ending is None:
        return None
    path = Path(models.spec.out) / f"{task.case.id}.{ending}"
    if ending == "b2nd":
        return ProbabilityFile(path, models.plan, prepared, task.reorientation)
    assert task.volume is not None and task.spacing is not None
    of_reader = models.plan.reoriented_by is not None
    geometry = Geometry(
        task.volume.grid, task.reorientation, of_reader=of_reader, spacing=task.spacing
    )
    return EnsembleFiles(path, models.plan, prepared, geometry)


def _segment(
    task: CaseTask, models: LoadedModels, loaded: LoadedModel, *, splits: int, **options: Any
) -> Segmentation:
    """Predict the volume; where the memory of a GPU is too small, again in more parts.

    Args:
        task: with the model's input.
        models: of the run.
        loaded: the one that predicts.
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
                step=models.spec.step_size,
                splits=splits,
                batch=batch,
                **options,
            )
        except RuntimeError as error:  # Apple's GPUs have no class of their own for it
            on_cpu = models.device.type == "cpu"
            if on_cpu or splits >= MAX_SPLITS or not ran_out_of_memory(error):
                raise
            splits, batch = 2 * splits, 1
        if models.device.type == "cuda":
            torch.cuda.empty_cache()


def _postprocess(task: CaseTask, model: Model, steps: Steps) -> None:
    """Apply nnU-Net's postprocessing to the mask, and note what it removed."""
    assert task.segmentation is not None
    mask = np.ascontiguousarray(task.segmentation.mask)
    for values in steps:
        removed = keep_largest(mask, values)
        names = [name for name, own in model.mask_values.items() if set(own) & set(values)]
        task.notes.append(
            f"postprocessing: the largest component of {', '.join(names)} was kept, "
            f"{counted(removed, 'voxel')} removed"
        )
    task.segmentation = replace(task.segmentation, mask=mask)
