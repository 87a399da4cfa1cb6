"""All models of a run in memory: the model, the first one of a cascade, the localizer, and the memory they take."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.footprint import Footprint, limit_bytes, measure
from dinomed3d.inference.cohort.worker.loaded_model import LoadedModel
from dinomed3d.inference.cohort.worker.localizer import Localizer
from dinomed3d.inference.cohort.worker.precision import choose_precision
from dinomed3d.inference.models.model import Model
from dinomed3d.inference.models.model_files import digest_of
from dinomed3d.inference.models.postprocessing import check_labels
from dinomed3d.inference.nnunet.build_network import has_trainer
from dinomed3d.inference.nnunet.plan import Plan
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import choose_device


class LoadedModels:
    """The networks of a run on their device, with the options that they predict with."""

    def __init__(self, model: Model, spec: PredictSpec) -> None:
        """Load the networks of all folds, and measure the memory they take.

        Raises:
            UserError: the model or the device cannot be used.
        """
        self.model = model
        self.spec = spec
        self.device = torch.device(choose_device(spec.device))
        self.precision = choose_precision(spec.precision, model.trainer, self.device)
        if spec.postprocessing_steps is not None:
            known = [value for values in model.mask_values.values() for value in values]
            check_labels(spec.postprocessing_steps, known, spec.postprocessing or "of the model")
        self.main = self._load(model)
        self.first = None if model.previous is None else self._load(model.previous)
        self.localizer = self._load_localizer()
        self.limit = limit_bytes(spec.memory_limit_gib)
        # all networks are in memory by now
        for loaded in filter(None, (self.first, self.main)):
            loaded.measure(self.limit)
        self.localizer_footprint = Footprint(base=0, window=0)
        """Memory while the localizer predicts; of no meaning without one."""
        if self.localizer is not None:
            coarse = measure(self.localizer.try_window)
            self.localizer_footprint = replace(coarse, base=self.base)

    @property
    def plan(self) -> Plan:
        """The plan of the model itself, which is the second one of a cascade."""
        return self.main.plan

    @property
    def base(self) -> int:
        """Bytes of the process with all networks loaded and no case being processed."""
        return self.main.footprint.base

    def on_pass(self, sign: Callable[[], None]) -> None:
        """Have a function called after each pass of a batch of windows through any network."""
        models: list[LoadedModel | Localizer | None] = [self.main, self.first, self.localizer]
        for one in models:
            if one is not None:
                one.predictor.on_pass = sign

    def notes(self) -> Iterator[str]:
        """What the record of every case says of the models."""
        for one in filter(None, (self.model.previous, self.model)):
            if not has_trainer(one.trainer):
                yield (
                    f"the trainer {one.trainer} is not installed here; the network was built as nnU-Net's own "
                    "builds it, and all weights fit"
                )
        first = self.model.previous
        if first is not None:
            yield (
                f"cascade: predicted with {first.configuration} (folds {', '.join(first.folds)}) first, "
                f"whose labels are input of {self.model.configuration}"
            )

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
