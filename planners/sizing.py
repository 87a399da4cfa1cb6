"""Search for encoder, patch and batch that fit a dataset, a memory and a time.

The token grid depends on the slices alone. The encoder is the largest one that trains within memory and
time on whole slices and on enough of them. If not even the smallest does, these are given up in order:
speed (activation checkpointing), fine tokens, slices of a patch, whole slices, and the limit on time.
Remaining memory and time go into slices of a patch, then into the batch.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from dinomed3d.networks import COMPONENTS, NetworkSpec
from dinomed3d.runtime.errors import UserError
from planners.budget import Budget
from planners.cost import StepCost, prediction, stage_one, stage_two
from planners.dataset_stats import DatasetStats
from planners.encoders import encoder_size
from planners.network_rules import (
    TOKEN_SIDES,
    learning_rate_for,
    network_for,
    round_up,
    token_side,
    tokens_of,
)

ENCODER_CANDIDATES = (
    "vit_large_patch16_dinov3",
    "vit_base_patch16_dinov3",
    "vit_small_plus_patch16_dinov3",
    "vit_small_patch16_dinov3",
)
"""Encoders that the planner chooses from, largest first; others only if the user names them."""
RECEPTIVE_DEPTH = 32
"""Receptive field across slices of the adapters of 12 blocks and the decoder; longer patches gain nothing."""
MAX_WHOLE_DEPTH = 48
"""Volumes with at most this many slices are taken whole."""
TARGET_DEPTH = 16
"""Slices of a patch of a longer volume that a larger encoder must leave room for, as in DINO-Med3D."""
MIN_DEPTH = 8
"""Slices (or all, if fewer) that are kept before slices are cropped."""
MIN_TOKENS = 256
"""Tokens of a slice below which tokens are not made coarser to save memory or time."""
MIN_BATCH = 2
"""Smallest batch, as in nnU-Net: Dice over one patch is too noisy."""
TARGET_BATCH_2D = 8
"""Single slices in a step that a larger encoder must leave room for."""
MAX_BATCH = 64
"""Largest batch: more steps help more than more patches per step."""
MAX_DATASET_SHARE = 0.05
"""Largest share of all voxels in a batch: nnU-Net's precaution against overfitting."""
MIN_SIDE = 64
"""Smallest side to which slices are cropped, voxels."""
MAX_STAGE1_SLICES = 96
"""Largest number of slices in a step of stage I."""


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The decisions for a configuration, and their cost."""

    spec: NetworkSpec
    patch: tuple[int, ...]
    """(D, H, W) or (H, W), voxels."""
    batch: int
    """Patches in a step."""
    recipe: Mapping[str, Any]
    """Fields of the recipe that the plan sets."""
    stage_one: StepCost | None
    """Cost of a step of stage I; None without an encoder."""
    stage_two: StepCost
    """Cost of a step of stage II."""
    prediction: float
    """Peak memory of predicting one patch, bytes."""

    @property
    def peak(self) -> float:
        """Peak memory of training, bytes."""
        first = 0.0 if self.stage_one is None else self.stage_one.peak
        return max(first, self.stage_two.peak)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network and patch, with or without activation checkpointing, whose cost can be computed."""

    spec: NetworkSpec
    patch: tuple[int, ...]
    checkpointing: bool

    def stage_two(self, stats: DatasetStats, batch: int) -> StepCost:
        """Cost of a step of stage II on `batch` patches."""
        return stage_two(
            self.spec,
            self.patch,
            batch=batch,
            channels=stats.channels,
            classes=stats.classes,
            checkpointing=self.checkpointing,
        )

    def stage_one(self, stats: DatasetStats, slices: int, resident: int) -> StepCost:
        """Cost of a step of stage I on `slices`, with `resident` parameters in memory."""
        return stage_one(
            self.spec,
            self.patch,
            slices=slices,
            channels=stats.channels,
            classes=stats.classes,
            resident=resident,
            checkpointing=self.checkpointing,
        )

    def steps(self, stats: DatasetStats, batch: int) -> list[StepCost]:
        """Cost of stage II on `batch` patches, and of stage I on as many slices, or eight."""
        two = self.stage_two(stats, batch)
        if "encoder" not in self.spec.components:
            return [two]
        slices = min(8, batch * math.prod(self.patch[:-2]))
        return [two, self.stage_one(stats, slices, two.resident)]

    def fits(self, stats: DatasetStats, batch: int, budget: Budget) -> bool:
        """Whether a step of either stage stays within memory and time."""
        steps = self.steps(stats, batch)
        return all(s.peak <= budget.memory and s.flops <= budget.flops for s in steps)


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a trial must keep while memory and time are short."""

    slices: int
    """Smallest number of slices of a patch."""
    token: int
    """Voxels per token."""
    plane: tuple[int, int]
    """Size of a slice, voxels."""
    checkpointing: bool = False
    """Whether activation checkpointing is on."""
    batch: int = MIN_BATCH
    """Patches in a step."""


class Search:
    """The search for one dataset and one set of forced fields."""

    def __init__(self, stats: DatasetStats, forced: Mapping[str, Any]) -> None:
        """Derive what depends on the dataset alone.

        Args:
            stats: the dataset.
            forced: fields of NetworkSpec that the user has set.
        """
        self.stats = stats
        self.forced = forced
        self.plane = (stats.shape[-2], stats.shape[-1])
        self.depth = 1 if len(stats.shape) == 2 else stats.shape[0]
        self.single_slice = self.depth == 1
        self.token = forced.get("voxels_per_token", token_side(*self.plane))

    @property
    def encoders(self) -> tuple[str, ...]:
        """Candidates, largest first; a single one if the user names it or its size."""
        if self.forced.keys() & {"encoder", "encoder_overrides"}:
            return (self.forced.get("encoder", NetworkSpec.encoder),)
        if "encoder" in self.forced.get("components", COMPONENTS):
            return ENCODER_CANDIDATES
        return ENCODER_CANDIDATES[-1:]

    @property
    def context_slices(self) -> int:
        """Slices that a patch of the cascade's low-resolution configuration should hold."""
        return math.ceil(self.stats.context * self.depth)

    @property
    def max_slices(self) -> int:
        """Slices of a patch if memory is unlimited."""
        whole = self.depth <= MAX_WHOLE_DEPTH
        return self.depth if whole else max(RECEPTIVE_DEPTH, self.context_slices)

    @property
    def target_slices(self) -> int:
        """Slices of a patch that are not given up for speed or a larger encoder."""
        whole = self.depth <= MAX_WHOLE_DEPTH
        return self.max_slices if whole else max(TARGET_DEPTH, self.context_slices)

    def deepest(self, encoder: str, demands: Demands, budget: Budget) -> Trial | None:
        """The trial with most slices within the budget; None if it would have too few."""
        spec = network_for(
            self.stats,
            encoder,
            demands.plane,
            demands.token,
            single_slice=self.single_slice,
            forced=self.forced,
        )
        height, width = (round_up(side, spec.multiple) for side in demands.plane)
        if self.single_slice and height == width == spec.multiple:
            width *= 2  # a single voxel at the coarsest level has no norm
        sides = (height, width)

        def trial(depth: int) -> Trial:
            patch = sides if len(self.stats.shape) == 2 else (depth, *sides)
            return Trial(spec=spec, patch=patch, checkpointing=demands.checkpointing)

        def too_much(depth: int) -> bool:
            return not trial(depth).fits(self.stats, demands.batch, budget)

        depths = range(min(demands.slices, self.max_slices), self.max_slices + 1)
        fitting = bisect_left(depths, True, key=too_much)
        return trial(depths[fitting - 1]) if fitting else None

    def choose(self, budget: Budget) -> Trial:
        """The best trial that fits.

        Raises:
            UserError: not even the smallest fits.
        """
        *larger, smallest = self.encoders
        target = self.demands(slices=self.target_slices)
        batch = TARGET_BATCH_2D if len(self.stats.shape) == 2 else MIN_BATCH
        candidates = [(encoder, replace(target, batch=batch), budget) for encoder in larger]
        fallbacks = [target, *self.fallbacks()]
        for limit in (budget, replace(budget, unlimited_time=True)):
            candidates += [(smallest, demands, limit) for demands in fallbacks]
        trials = (self.deepest(*candidate) for candidate in candidates)
        found = next((trial for trial in trials if trial is not None), None)
        if found is None:
            raise UserError(self._too_small(smallest, fallbacks[-1], budget))
        return found

    def demands(self, **changes: Any) -> Demands:
        """Whole slices on the token grid that suits them, with changes."""
        return Demands(**({"token": self.token, "plane": self.plane} | changes))

    def fallbacks(self) -> Iterator[Demands]:
        """What the smallest encoder gives up, in this order, if memory or time is short."""
        fixed = "voxels_per_token" in self.forced
        tokens = [self.token]
        if not fixed:
            area = self.plane[0] * self.plane[1]
            tokens += [t for t in TOKEN_SIDES if t > self.token and area / t**2 >= MIN_TOKENS]
        yield self.demands(slices=self.target_slices, checkpointing=True)
        for token in tokens[1:]:
            yield self.demands(slices=self.target_slices, token=token)
            yield self.demands(slices=self.target_slices, token=token, checkpointing=True)
        for token in tokens:
            yield self.demands(slices=MIN_DEPTH, token=token, checkpointing=True)
        plane, token = self.plane, self.token
        while max(plane) > MIN_SIDE:  # the longer side first, then both
            side = max(MIN_SIDE, max(plane) * 3 // 4)
            plane = (min(plane[0], side), min(plane[1], side))
            token = token if fixed else token_side(*plane)
            yield self.demands(slices=MIN_DEPTH, token=token, checkpointing=True, plane=plane)
        yield self.demands(slices=1, token=token, checkpointing=True, plane=plane)

    def _too_small(self, encoder: str, least: Demands, budget: Budget) -> str:
        trial = self.deepest(encoder, least, Budget(memory_gib=math.ldexp(1, 40)))
        assert trial is not None
        patch = (*[1] * (len(trial.patch) - 2), *trial.patch[-2:])
        steps = replace(trial, patch=patch).steps(self.stats, MIN_BATCH)
        need = math.ceil(10 * Budget.for_bytes(max(step.peak for step in steps))) / 10
        return (
            f"planner: -gpu_memory_target {budget.memory_gib:g} (GiB) is too small: {encoder}, {self.stats.channels} "
            f"channels and {self.stats.classes} outputs need {need:.1f} even for a patch of {list(patch)}; raise the "
            "target, or name a smaller encoder with DINOMED3D_ENCODER or DINOMED3D_ENCODER_OVERRIDES"
        )

    def batch(self, trial: Trial, budget: Budget) -> int:
        """Patches in a step: as many as memory, time and MAX_DATASET_SHARE allow, at least two."""
        share = MAX_DATASET_SHARE * self.stats.voxels / math.prod(trial.patch)
        most = int(min(MAX_BATCH, max(MIN_BATCH, round(share))))

        def too_much(batch: int) -> bool:
            two = trial.stage_two(self.stats, batch)
            return two.peak > budget.memory or two.flops > budget.flops

        return MIN_BATCH + bisect_left(range(MIN_BATCH + 1, most + 1), True, key=too_much)

    def slices(self, trial: Trial, batch: int, two: StepCost, budget: Budget) -> int:
        """Slices in a step of stage I: as many as memory and time allow, at most those of stage II's batch.

        If stage II's step exceeds the time of the budget, stage I's may take as long.
        """
        most = min(MAX_STAGE1_SLICES, batch * math.prod(trial.patch[:-2]))

        def too_much(slices: int) -> bool:
            step = trial.stage_one(self.stats, slices, two.resident)
            return step.peak > budget.memory or step.flops > max(budget.flops, two.flops)

        return 2 + bisect_left(range(3, most + 1), True, key=too_much)


def size_configuration(
    stats: DatasetStats, memory_gib: float, forced: Mapping[str, Any] | None = None
) -> Sizing:
    """Size a configuration.

    Args:
        stats: its training images.
        memory_gib: nnU-Net's memory target.
        forced: fields of NetworkSpec that the user has set (DINOMED3D_ENCODER and so on).

    Raises:
        UserError: a dataset that cannot be planned, or a memory in which nothing fits.
    """
    budget = Budget(memory_gib=memory_gib)
    search = Search(stats, forced or {})
    trial = search.choose(budget)
    batch = search.batch(trial, budget)
    two = trial.stage_two(stats, batch)
    one = None
    recipe: dict[str, Any] = {"activation_checkpointing": trial.checkpointing}
    if "encoder" in trial.spec.components:
        slices = search.slices(trial, batch, two, budget)
        one = trial.stage_one(stats, slices, two.resident)
        recipe |= {
            "stage1_slices": slices,
            "stage1_tokens": slices * tokens_of(trial.spec, trial.patch),
            "rate_encoder": learning_rate_for(
                encoder_size(trial.spec.encoder, trial.spec.encoder_overrides).width
            ),
        }
    return Sizing(
        spec=trial.spec,
        patch=trial.patch,
        batch=batch,
        recipe=recipe,
        stage_one=one,
        stage_two=two,
        prediction=prediction(
            trial.spec, trial.patch, channels=stats.channels, classes=stats.classes
        ),
    )
