"""A trained model in memory, with the batch of windows it is given and the memory that takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from dinomed3d.inference.cohort.worker.footprint import Footprint, measure
from dinomed3d.inference.models.model import Model, fold_weights
from dinomed3d.inference.nnunet.build_network import build_network
from dinomed3d.inference.nnunet.plan import read_plan
from dinomed3d.inference.nnunet.predictor import Predictor
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.out_of_memory import ran_out_of_memory


class LoadedModel:
    """The networks of all folds of a model on their device."""

    def __init__(
        self,
        model: Model,
        *,
        mirroring: bool,
        device: torch.device,
        precision: torch.dtype | None,
    ) -> None:
        """Load the networks.

        Args:
            model: checked, without weights.
            mirroring: whether predictions of mirrored windows are averaged, along the axes that the model names.
            device: of the networks.
            precision: of autocast, None for float32.

        Raises:
            UserError: the model cannot be used.
        """
        self.source = model.source
        self.plan = read_plan(model)
        # one after the other: each needs memory for its weights twice while it is prepared
        networks = (build_network(model, fold_weights(model, fold)) for fold in model.folds)
        self.predictor = Predictor(
            networks,
            mirroring=model.mirroring if mirroring else None,
            device=device,
            precision=precision,
        )
        on_cpu = device.type == "cpu"
        self.patch_voxels = int(np.prod(self.plan.patch))
        self.batch = max(1, min(16, (2**18 if on_cpu else 2**22) // self.patch_voxels))
        self.footprint = Footprint(base=0, window=0)
        """Memory of the process and of a batch of windows, once `measure` was called."""

    def measure(self, limit: int) -> None:
        """Measure the memory of a batch of windows, and choose how much is predicted and kept at once.

        Args:
            limit: bytes for the whole process.

        Raises:
            UserError: the plan's patch is larger than the memory, or the networks cannot process it.
        """
        device = self.predictor.device
        footprint = self._try_windows(limit)
        if device.type == "cpu":
            self.predictor.threads = self._threads(footprint.window, limit)
        self.footprint = replace(
            footprint,
            # batches in the networks, and finished ones that wait to be added
            window=footprint.window * (2 * self.predictor.threads - 1),
            slice=self.predictor.slice_bytes if device.type == "cpu" else 0,
            cache=self._limit_cache(footprint.base, limit),
        )

    def _try_windows(self, limit: int) -> Footprint:
        """Measure a batch of empty windows in the networks."""
        channels, device = self.plan.inputs, self.predictor.device
        name = f"model {self.source}: its plan's patch of {list(self.plan.patch)} voxels"
        if 4 * self.patch_voxels * channels > limit:
            raise UserError(f"{name} takes more memory than there is, before any network")
        windows = torch.zeros((self.batch, channels, *self.plan.patch))
        places = [(0, 0, 0)] * self.batch
        try:
            return measure(lambda: self.predictor.try_passes(windows.to(device), places))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if ran_out_of_memory(error):
                raise
            raise UserError(
                f"{name} does not fit its network ({str(error).splitlines()[0]}); use the file that "
                "nnU-Net wrote"
            ) from error

    def _limit_cache(self, base: int, limit: int) -> int:
        """Let cached features take half of the memory that is free on a GPU, elsewhere an eighth of ours.

        Returns:
            Bytes of this process that they may take.
        """
        device = self.predictor.device
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            self.predictor.limit_cache(free // 2)
            return 0
        share = max(0, limit - base) // 8
        self.predictor.limit_cache(share)
        return share

    def _threads(self, window_bytes: int, limit: int) -> int:
        """Number of batches to predict in parallel: up to four, in a fifth of the memory."""
        if self.predictor.slice_bytes:
            return 1
        fit = [n for n in range(1, 5) if (2 * n - 1) * window_bytes <= limit / 5]
        return max(1, min(torch.get_num_threads(), len(fit)))
