"""Which labels the first epoch of a run shows: without any the loss is 0, which looks like a perfect fit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.scene import IGNORE

SHOWN = 8
"""Classes that a message lists."""


class SeenLabels:
    """Points of each class in the batches of this device, counted on the CPU, where batches come from."""

    def __init__(
        self, fabric: Fabric, names: Sequence[str], *, begin: int, epoch: int, validation: int
    ) -> None:
        """Count nothing yet.

        Args:
            fabric: the devices, whose counts are added up.
            names: of the classes.
            begin: step that the run begins or goes on with. What was seen before it is not known.
            epoch: steps that see each training cloud once.
            validation: step of the first validation of the run.
        """
        self.fabric, self.names = fabric, tuple(names)
        self.begin, self.end = begin, begin + epoch
        self.checked_at = {self.end} if begin else {self.end, min(validation, self.end)}
        self.counts = torch.zeros(len(self.names), dtype=torch.int64)

    def add(self, step: int, cloud: Cloud) -> None:
        """Count the labels of a batch of a step; what is no class is for the loss to refuse."""
        if step < self.end and cloud.segment is not None:
            classes = len(self.names)
            # numpy counts five times as fast as torch
            places = cloud.segment.numpy().clip(IGNORE, classes) + 1
            self.counts += torch.from_numpy(np.bincount(places, minlength=classes + 2)[1:-1])

    def check(self, step: int) -> str:
        """Look at what was seen, after the first epoch and before a validation that comes earlier.

        Args:
            step: steps that were done, by all devices.

        Returns:
            Of which classes the first epoch has shown nothing; "" if there are none, or it has not ended.

        Raises:
            UserError: no label was seen, on no device.
        """
        if step not in self.checked_at:
            return ""
        counts = self._of_all_devices()
        if not counts.any():
            raise UserError(
                f"no point of the training clouds had a label of a class in {step - self.begin} steps, so that nothing "
                "was learned: are the files labelled, and do 'label' and 'labels' in their description fit?"
            )
        unseen = [self.names[number] for number in (counts == 0).nonzero().flatten().tolist()]
        if step != self.end or not unseen:
            return ""
        more = f" and {len(unseen) - SHOWN} more" if len(unseen) > SHOWN else ""
        return (
            f"the first epoch has shown no point of {', '.join(unseen[:SHOWN])}{more}: a class without labelled points "
            "is not learned"
        )

    def _of_all_devices(self) -> Tensor:
        if self.fabric.world_size == 1:
            return self.counts
        summed = self.fabric.all_reduce(self.counts.to(self.fabric.device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed.cpu()
