"""A network, patch and batch that the search tries, with its cost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dinomed3d.networks import NetworkSpec
from planners.cost import StepCost, stage_one, stage_two
from planners.sizing.dataset_stats import DatasetStats

MIN_STAGE1_SLICES = 8
"""Slices of stage I (or all of a batch, if fewer) that must fit the memory."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network, patch and batch, with or without activation checkpointing, whose cost can be computed."""

    spec: NetworkSpec
    patch: tuple[int, ...]
    batch: int
    checkpointing: bool = False

    def stage_two(self, stats: DatasetStats) -> StepCost:
        """Cost of a step of stage II."""
        return stage_two(
            self.spec,
            self.patch,
            batch=self.batch,
            channels=stats.channels,
            classes=stats.classes,
            checkpointing=self.checkpointing,
        )

    def stage_one(self, stats: DatasetStats, slices: int, resident: int) -> StepCost:
        """Cost of a step of stage I on `slices` slices, with `resident` parameters in memory."""
        return stage_one(
            self.spec,
            self.patch,
            slices=slices,
            channels=stats.channels,
            classes=stats.classes,
            resident=resident,
            checkpointing=self.checkpointing,
        )

    @property
    def slices(self) -> int:
        """Slices in a batch."""
        return self.batch * math.prod(self.patch[:-2])

    def peak(self, stats: DatasetStats) -> float:
        """Peak memory of both stages in bytes; stage I with its smallest number of slices."""
        two = self.stage_two(stats)
        if "encoder" not in self.spec.components:
            return two.peak
        slices = min(MIN_STAGE1_SLICES, self.slices)
        return max(two.peak, self.stage_one(stats, slices, two.resident).peak)
