"""A trained model for Python programs: loaded once, used many times."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

import torch

from dinomed3d.hub.local_model import VOLUME, local_model
from dinomed3d.inference.case import Case, CaseError
from dinomed3d.inference.cohort.events import CaseProgress, Event
from dinomed3d.inference.cohort.resolve_options import resolve
from dinomed3d.inference.cohort.spec import PRECISIONS, PredictSpec
from dinomed3d.inference.cohort.worker.case_task import CaseTask
from dinomed3d.inference.cohort.worker.worker import Worker
from dinomed3d.inference.in_memory.images import understand
from dinomed3d.inference.models.licence import encoder_name
from dinomed3d.inference.models.model import FINAL, open_model
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import check_precision, choose_device
from dinomed3d.runtime.messages.counted import counted, shortly, sides
from dinomed3d.runtime.messages.terminal_text import one_line

log = logging.getLogger(__name__)


def load_model(
    path: str | PathLike[str],
    *,
    device: str = "auto",
    folds: Sequence[str | int] | None = None,
    checkpoint: str = FINAL,
    precision: str = "auto",
    mirroring: bool = True,
    step_size: float = 0.5,
    memory_limit_gib: float | None = None,
    postprocessing: bool | str | PathLike[str] = False,
) -> VolumeSegmenter:
    """Load a trained model of nnU-Net v2 or a package of ours, with all its folds.

    Args:
        path: a trained-model folder, its exported zip, a package, or `hf:owner/name` on the Hugging Face hub.
        device: auto, cpu, cuda or mps.
        folds: to average; None for all with the checkpoint.
        checkpoint: file name of the weights in a fold's folder.
        precision: auto, float32, bfloat16 or float16; auto is what the model was trained with on the device.
        mirroring: whether predictions of mirrored windows are averaged, along the axes that the model names.
        step_size: distance between windows as a fraction of the patch size, at most.
        memory_limit_gib: main memory of this process; None for most of what is free.
        postprocessing: nnU-Net's of masks: True for the model's own, or the `postprocessing.json` or `.pkl` to apply.

    Raises:
        UserError: the model cannot be used, or an argument is not one of those named.

    Predictions are those of `dinomed3d predict` with the same options.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"load_model: 'precision' must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    if precision != "auto":
        check_precision(precision, choose_device(device), "load_model: 'precision'")
    local = local_model(path, VOLUME)
    chosen = None if folds is None else tuple(str(fold) for fold in folds)
    spec = PredictSpec(
        source="",
        out="",
        model=str(local),
        folds=chosen,
        checkpoint=checkpoint,
        device=device,
        precision=precision,
        mirroring=mirroring,
        step_size=step_size,
        memory_limit_gib=memory_limit_gib,
        postprocessing=_postprocessing(postprocessing),
    )
    return VolumeSegmenter(
        Worker(open_model(local, folds=chosen, checkpoint=checkpoint), resolve(spec))
    )


def _postprocessing(given: bool | str | PathLike[str]) -> str | None:
    """As `PredictSpec` has it: empty for the model's own."""
    if isinstance(given, bool):
        return "" if given else None
    return str(given)


class VolumeSegmenter:
    """A model in memory. Threads may share it; their volumes go through the network one after the other."""

    def __init__(self, worker: Worker) -> None:
        """Make it from a loaded model; `load_model` does."""
        self._worker = worker
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """In one line what it is: data set, network, labels, channels, spacing and device."""
        loaded = self._worker.models
        model, precision = loaded.model, loaded.precision or torch.float32
        parts = [
            f"{model.name}, {model.trainer} {model.configuration}",
            f"{counted(len(model.folds), 'fold')}",
            f"labels {shortly(self.labels)}",
            f"channels {shortly(self.channels)}",
        ]
        if encoder := encoder_name(model):
            parts.append(f"encoder {encoder}")
        parts += [
            f"spacing {sides(self.spacing_mm)} mm",
            f"{str(precision).removeprefix('torch.')} on {loaded.device}",
        ]
        return one_line(f"<{type(self).__name__}: {'; '.join(parts)}>")

    @property
    def labels(self) -> Mapping[str, list[int]]:
        """Name of a label or region -> its values in a mask, without background."""
        return self._worker.model.mask_values

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels of an image, in order."""
        return self._worker.model.channels

    @property
    def spacing_mm(self) -> tuple[float, ...]:
        """Spacing of the network's grid, in the network's order of axes."""
        return self._worker.model.spacing

    def predict(
        self,
        image: Any,
        *,
        spacing: Sequence[float] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Any:
        """Segment one image. What the record of a case would note about it, such as converted units, is logged.

        Args:
            image: a path (file, DICOM folder, zip of one series), a list of paths with a file for each channel, a
                SimpleITK image, a nibabel image, or an array (Z, Y, X) or (C, Z, Y, X) whose axes are those that
                the model was trained with.
            spacing: mm (z, y, x); of an array, and of nothing else.
            progress: is called with the fraction that is done; what it raises ends the prediction and is raised here.

        Returns:
            Labels on the image's own grid: for an array an array (Z, Y, X), for a nibabel image one of nibabel,
            for a SimpleITK image or a path one of SimpleITK; uint8, or uint16 where labels are above 255.

        Raises:
            CaseError: the image cannot be read or segmented, in one sentence.
        """
        given = understand(image, self.channels, spacing)
        task = CaseTask(Case(id="image", scans=()))
        task.volume = given.volume

        raised: list[Exception] = []

        def on_event(event: Event) -> None:
            if progress is None or not isinstance(event, CaseProgress):
                return
            if event.step == "network":  # what runs before it would count to the end twice
                try:
                    progress(event.done / event.windows)
                except Exception as error:
                    raised.append(error)
                    raise

        with self._lock:
            self._worker.segment(task, on_event)
        if raised:
            raise raised[0]
        if task.reason is not None:
            raise CaseError(task.reason)
        for note in given.volume.notes:
            log.warning("predict: %s", one_line(note))
        assert task.segmentation is not None
        return given.mask(task.segmentation.mask)
