"""A coarse model that finds the region of a volume in which the model itself is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d.inference.models.model import Model, fold_weights, open_model
from dinomed3d.inference.nnunet.build_network import build_network
from dinomed3d.inference.nnunet.plan import Plan, read_plan
from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.inference.nnunet.preprocess import prepare
from dinomed3d.inference.nnunet.region import Region, find_region
from dinomed3d.inference.nnunet.segment import segment
from dinomed3d.runtime.errors import UserError

STEP = 0.5
"""Distance of its windows as a fraction of its patch: nnU-Net's default, whatever the model itself is run with."""


@dataclass(frozen=True)
class Localizer:
    """A coarse model in memory."""

    plan: Plan
    """Its preprocessing, patch and labels."""
    predictor: Predictor
    """Its networks."""

    @staticmethod
    def load(
        path: Path, model: Model, *, device: torch.device, precision: torch.dtype | None
    ) -> Localizer:
        """Open the coarse model, without mirroring and without a choice of folds.

        Args:
            path: of the coarse model.
            model: whose region it finds.
            device: of both.
            precision: of both.

        Raises:
            UserError: it is no model, or reads other images than the model.
        """
        coarse = open_model(path)
        if coarse.previous is not None:
            raise UserError(
                f"--localizer {path}: must be a single model, it is a cascade; use its first model "
                f"({coarse.previous.configuration})"
            )
        if coarse.channels != model.channels:
            raise UserError(
                f"--localizer {path}: must read the channels of the model ({', '.join(model.channels)}), it reads "
                f"{', '.join(coarse.channels)}; use a model that was trained on the same images"
            )
        plan = read_plan(coarse)
        if plan.reoriented_by != read_plan(model).reoriented_by:
            raise UserError(
                f"--localizer {path}: must reorient images as the model does ({model.reader}), it reads them with "
                f"{coarse.reader}; use a model that was trained on the same images"
            )
        networks = [build_network(coarse, fold_weights(coarse, fold)) for fold in coarse.folds]
        predictor = Predictor(networks, mirroring=None, device=device, precision=precision)
        return Localizer(plan, predictor)

    def try_window(self) -> torch.Tensor:
        """Predict an empty window, so that the memory it takes can be measured."""
        shape = (1, len(self.plan.channels), *self.plan.patch)
        return self.predictor(torch.zeros(shape, device=self.predictor.device), [(0, 0, 0)])

    def find(
        self,
        channels: Sequence[NDArray[Any]],
        spacing: Sequence[float],
        *,
        spacing_mm: Sequence[float],
        splits: int,
        margin_mm: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> Region | None:
        """The region around everything that it labels; None where it labels nothing.

        Args:
            channels: each (Z, Y, X), in the order of axes that models are given.
            spacing: (z, y, x), in the numbers that the coarse model was trained with.
            spacing_mm: (z, y, x).
            splits: number of row ranges that are predicted one after the other.
            margin_mm: on each side of the region.
            progress: receives how many windows are done, of how many.
        """
        found = segment(
            prepare(channels, spacing, self.plan, device=self.predictor.device),
            self.plan,
            self.predictor,
            step=STEP,
            splits=splits,
            batch=1,
            progress=progress,
        )
        return find_region(np.asarray(found.mask), spacing_mm, margin_mm=margin_mm)
