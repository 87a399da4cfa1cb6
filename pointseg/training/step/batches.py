"""Whole batches of training, made in the workers of a data loader: scenes loaded, joined and mixed."""

from __future__ import annotations

import numpy as np
from torch.utils.data import Dataset as TorchDataset

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.loading.samples import Samples, join
from pointseg.training.step.mix3d import mix3d
from pointseg.training.step.schedule import Schedule


class TrainingBatches(TorchDataset[Cloud | UserError]):
    """Batches of one device by (step, number among the accumulated ones); errors are returned, as by ``Samples``.

    What Mix3D draws follows from seed, step, device and number alone: neither workers nor resuming change it.
    """

    def __init__(
        self, samples: Samples, schedule: Schedule, *, mix3d: float, seed: int, device: int
    ) -> None:
        """Take the scenes.

        Args:
            samples: scenes, augmented and voxel-sampled.
            schedule: says which scenes a batch has.
            mix3d: probability of Mix3D, for a batch as a whole.
            seed: of the run.
            device: number of the device whose share of a step is made.
        """
        self.samples, self.schedule = samples, schedule
        self.mix3d, self.seed, self.device = mix3d, seed, device

    def __getitem__(self, item: tuple[int, int]) -> Cloud | UserError:
        """The batch of a step and a number."""
        step, number = item
        items = self.schedule.items(step, self.device, number)
        batch = join([self.samples[scene] for scene in items])
        if isinstance(batch, UserError):
            return batch
        rng = np.random.default_rng([self.seed, 1, step, self.device, number])
        try:
            return mix3d(batch, self.mix3d, rng)
        except ValueError as error:  # from voxels that do not fit
            return UserError(str(error))
