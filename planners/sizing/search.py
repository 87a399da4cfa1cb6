"""The search for tokens and encoder that suit nnU-Net's CNN, the data and the memory."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from dinomed3d.networks import COMPONENTS, CnnSpec, NetworkSpec
from dinomed3d.runtime.errors import UserError
from planners.budget import Budget
from planners.cost import StepCost
from planners.cost.encoder_sizes import encoder_size
from planners.sizing.cnn_rule import CnnPlan, CnnRule
from planners.sizing.dataset_stats import DatasetStats
from planners.sizing.trial import Trial

ENCODER_CANDIDATES = (
    "vit_large_patch16_dinov3",
    "vit_base_patch16_dinov3",
    "vit_small_plus_patch16_dinov3",
    "vit_small_patch16_dinov3",
)
"""Encoders that the planner chooses from, largest first; others only if the user names them."""
TOKEN_SHARE = 0.5
"""Largest share of the CNN's operations in a step that the tokens' side may add."""
TOKEN_SIDES = (4, 8, 16, 32)
"""Voxels per token: less would enlarge slices more than fourfold, more would halve them."""
SLICE_STEPS = (1, 3)
"""Every how many slices one may be encoded, where tokens are at least as wide in plane as these are deep."""
MIN_TOKENS = 64
"""Tokens of a slice below which tokens are not made coarser."""
CNN_SHARES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Shares of the memory target for which nnU-Net's rule is asked, in this order."""
MAX_STAGE1_SLICES = 96
"""Largest number of slices in a step of stage I."""


class Search:
    """The search for one configuration and one set of forced fields."""

    def __init__(
        self, stats: DatasetStats, rule: CnnRule, budget: Budget, forced: Mapping[str, Any]
    ) -> None:
        """Store what the search depends on.

        Args:
            stats: the training images.
            rule: nnU-Net's for this configuration.
            budget: memory of the GPU.
            forced: fields of NetworkSpec that the user has set.
        """
        self.stats = stats
        self.rule = rule
        self.budget = budget
        self.forced = forced

    @property
    def encoders(self) -> tuple[str, ...]:
        """Candidates, largest first; a single one if the user names it or its size."""
        if self.forced.keys() & {"encoder", "encoder_overrides"}:
            return (self.forced.get("encoder", NetworkSpec.encoder),)
        if "encoder" in self.forced.get("components", COMPONENTS):
            return ENCODER_CANDIDATES
        return ENCODER_CANDIDATES[-1:]

    def network(self, cnn: CnnSpec, encoder: str, side: int, step: int) -> NetworkSpec:
        """The network with tokens of `side` voxels in every `step`-th slice."""
        stats = self.stats
        alone = len(stats.shape) == 2 or stats.shape[0] == 1
        fields: dict[str, Any] = {
            "encoder": encoder,
            "voxels_per_token": side,
            "slices_per_token": step,
            "cnn": cnn,
            "cascade_channels": stats.cascade_channels,
            **self.forced,
        }
        spec = NetworkSpec(**fields | ({"slices": 1} if alone else {}))
        if "adapter_width" in self.forced:
            return spec
        width = encoder_size(spec.encoder, spec.encoder_overrides).width
        return replace(spec, adapter_width=adapter_width_for(width))

    def tokens(self, plan: CnnPlan) -> list[tuple[int, int]]:
        """Sides of tokens and steps between encoded slices to choose from, finest first."""
        *depth, height, width = plan.patch
        sides = [s for s in TOKEN_SIDES if -(-height // s) * -(-width // s) >= MIN_TOKENS]
        sides = [self.forced.get("voxels_per_token", s) for s in sides or TOKEN_SIDES[:1]]
        distance = self.stats.spacing[0] / max(self.stats.spacing[-2:]) if depth else math.inf
        pairs = [
            (side, step)
            for side in sorted(set(sides))
            for step in SLICE_STEPS
            if step == 1 or step <= min(side / distance, math.prod(depth))
        ]
        step = self.forced.get("slices_per_token")
        return pairs if step is None else [(side, step) for side, other in pairs if other == 1]

    def trials(self, plan: CnnPlan) -> Iterator[Trial]:
        """The smallest encoder with the finest tokens within TOKEN_SHARE (the cheapest if none are).

        Without checkpointing, then with it.
        """
        encoder = self.encoders[-1]
        plain = [
            Trial(spec=self.network(plan.cnn, encoder, *pair), patch=plan.patch, batch=plan.batch)
            for pair in self.tokens(plan)
        ]
        if "encoder" not in plain[0].spec.components:
            yield plain[0]
            return
        for checkpointing in (False, True):
            found = [replace(trial, checkpointing=checkpointing) for trial in plain]
            cheapest = min(found, key=lambda trial: trial.stage_two(self.stats).token_share)
            yield next(filter(self.is_cheap, found), cheapest)

    def is_cheap(self, trial: Trial) -> bool:
        """Whether the tokens keep TOKEN_SHARE, recomputation included."""
        return trial.stage_two(self.stats).token_share <= TOKEN_SHARE

    def fits(self, trial: Trial) -> bool:
        """Whether a step of either stage stays within the memory."""
        return trial.peak(self.stats) <= self.budget.memory

    def choose(self) -> tuple[Trial, float]:
        """The best trial that fits, and the share of the memory target that its CNN was planned for.

        Raises:
            UserError: not even the smallest fits.
        """
        for share in CNN_SHARES:
            for trial in self.trials(self.rule(share * self.budget.memory_gib)):
                if self.fits(trial):
                    return self._enlarged(trial), share
        raise UserError(self._too_small())

    def _enlarged(self, trial: Trial) -> Trial:
        """The same with the largest encoder that keeps TOKEN_SHARE and the memory."""
        spec = trial.spec
        cell = (spec.voxels_per_token, spec.slices_per_token)
        for encoder in self.encoders[:-1]:
            larger = replace(trial, spec=self.network(spec.cnn, encoder, *cell))
            for checkpointing in (False, True):
                each = replace(larger, checkpointing=checkpointing)
                if self.is_cheap(each) and self.fits(each):
                    return each
        return trial

    def _too_small(self) -> str:
        gib, fits = self.budget.memory_gib, False
        while not fits:
            gib *= 1.1
            *_, smallest = self.trials(self.rule(CNN_SHARES[-1] * gib))
            fits = smallest.peak(self.stats) <= Budget(memory_gib=gib).memory
        stats, spec = self.stats, smallest.spec
        what = spec.encoder if "encoder" in spec.components else "the CNN"
        return (
            f"planner: -gpu_memory_target {self.budget.memory_gib:g} (GiB) is too small: {what}, {stats.channels} "
            f"channels and {stats.classes} outputs need {math.ceil(10 * gib) / 10:.1f} even for a patch of "
            f"{list(smallest.patch)}; raise the target, or name a smaller encoder with DINOMED3D_ENCODER or "
            "DINOMED3D_ENCODER_OVERRIDES"
        )

    def stage1_slices(self, trial: Trial, two: StepCost) -> int:
        """Slices in a step of stage I: of those in a batch, as many as memory and stage II's operations allow."""
        most = min(MAX_STAGE1_SLICES, trial.slices)

        def too_much(slices: int) -> bool:
            step = trial.stage_one(self.stats, slices, two.resident)
            return step.peak > self.budget.memory or step.flops > two.flops

        return 2 + bisect_left(range(3, most + 1), True, key=too_much)


def adapter_width_for(channels: int) -> int:
    """A sixth of the encoder's channels in steps of 16: 64 for ViT-S, the width of an attention head."""
    return max(16, channels // 6 // 16 * 16)
