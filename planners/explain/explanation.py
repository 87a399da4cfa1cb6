"""One configuration of a plan with its cost, and what follows from it: stages, memory of a GPU, times."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dinomed3d.training.data.stage_one_loader import MIN_DEPTH
from dinomed3d.training.settings.environment import RECIPE_VARIABLES, SPEC_VARIABLES
from dinomed3d.training.settings.recipe import Recipe
from planners.budget import Budget
from planners.cost import StepCost
from planners.explain.device_speed import Speed


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One configuration of a plan, with its cost."""

    name: str
    patch: tuple[int, ...]
    """(D, H, W) or (H, W), voxels."""
    batch: int
    """Patches in a step."""
    spacing: tuple[float, ...]
    """Spacing along the patch's axes, mm."""
    channels: int
    """Channels of the input, including the previous configuration's segmentation (cascade)."""
    classes: int
    """Channels of the logits."""
    recipe: Recipe
    slices: int
    """Slices in a step of stage I."""
    one: StepCost | None
    """Cost of a step of stage I; None where it is left out."""
    two: StepCost
    """Cost of a step of stage II."""
    prediction: float
    """Peak memory of predicting one patch, bytes."""
    decisions: list[Mapping[str, str]]
    """Rows of the plan's table of decisions."""
    target_gib: float | None
    """Memory that the plan was made for."""
    ours: bool
    """Whether the plan names our network; otherwise it is a stock plan, as our trainer would use it."""

    @property
    def stages(self) -> Mapping[str, tuple[StepCost, int, int]]:
        """Cost of a step, voxels of its patches and number of epochs of each stage that there is, "I" and "II"."""
        stages = {}
        if self.one is not None:
            voxels = self.slices * math.prod(slice_patch(self.patch))
            stages["I"] = self.one, voxels, self.recipe.stage1_epochs
        voxels = self.batch * math.prod(self.patch)
        return {**stages, "II": (self.two, voxels, self.recipe.stage2_epochs)}

    @property
    def needs_gib(self) -> float:
        """Memory of a GPU on which the stages that there are fit, libraries included, GiB."""
        peak = max(self.two.peak, 0.0 if self.one is None else self.one.peak)
        return Budget.for_bytes(peak)

    @property
    def variables(self) -> list[str]:
        """Environment variables that change the plan."""
        names = (*SPEC_VARIABLES, *RECIPE_VARIABLES)
        return [name for name in names if os.environ.get(name, "").strip()]

    def step_seconds(self, speed: Speed) -> dict[str, float]:
        """Time of a step of each stage that there is, "I" and "II", without loading."""
        return {
            stage: sum(speed.seconds(cost.components).values())
            for stage, (cost, _, _) in self.stages.items()
        }

    def hours(self, speed: Speed) -> float:
        """Time of all epochs of both stages, without loading and validation."""
        seconds, steps = self.step_seconds(speed), self.recipe.iterations_per_epoch
        return sum(
            seconds[stage] * steps * epochs / 3600 for stage, (_, _, epochs) in self.stages.items()
        )


def slice_patch(patch: Sequence[int]) -> tuple[int, ...]:
    """What stage I augments for a slice: some slices around it, or of single slices the slice alone."""
    return (MIN_DEPTH, *patch[1:]) if len(patch) == 3 else tuple(patch)
