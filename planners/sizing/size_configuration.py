"""Size a configuration: the search's choice with its cost, and what its recipe needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dinomed3d.networks import NetworkSpec
from planners.budget import Budget
from planners.cost import StepCost, prediction
from planners.cost.encoder_sizes import encoder_size
from planners.cost.geometry import tokens_of
from planners.sizing.cnn_rule import CnnRule
from planners.sizing.dataset_stats import DatasetStats
from planners.sizing.search import Search
from planners.sizing.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Sizing:
    """The decisions for a configuration, and their cost."""

    trial: Trial
    """Network, patch and batch."""
    cnn_share: float
    """Share of the memory target that nnU-Net's rule was asked for."""
    recipe: Mapping[str, Any]
    """Fields of the recipe that the plan sets."""
    stage_one: StepCost | None
    """Cost of a step of stage I; None without an encoder."""
    stage_two: StepCost
    """Cost of a step of stage II."""
    prediction: float
    """Peak memory of predicting one patch, bytes."""

    @property
    def spec(self) -> NetworkSpec:
        """The network."""
        return self.trial.spec

    @property
    def peak(self) -> float:
        """Peak memory of training, bytes."""
        first = 0.0 if self.stage_one is None else self.stage_one.peak
        return max(first, self.stage_two.peak)


def learning_rate_for(channels: int) -> float:
    """Stage I's peak learning rate of the encoder: 5e-5 for ViT-S, less for wider ones (1 / width)."""
    return float(f"{5e-5 * 384 / max(channels, 384):.1e}")


def size_configuration(
    stats: DatasetStats,
    rule: CnnRule,
    memory_gib: float,
    forced: Mapping[str, Any] | None = None,
) -> Sizing:
    """Size a configuration.

    Args:
        stats: its training images.
        rule: nnU-Net's rule for it.
        memory_gib: nnU-Net's memory target.
        forced: fields of NetworkSpec that the user has set (DINOMED3D_ENCODER and so on).

    Raises:
        UserError: a dataset that cannot be planned, a memory in which nothing fits, or fields with which the network
            cannot segment the patch.
    """
    search = Search(stats, rule, Budget(memory_gib=memory_gib), forced or {})
    trial, share = search.choose()
    one, spec = None, trial.spec
    spec.check_patch(trial.patch)
    two = trial.stage_two(stats)
    recipe: dict[str, Any] = {"activation_checkpointing": trial.checkpointing}
    if "encoder" in spec.components:
        slices = search.stage1_slices(trial, two)
        one = trial.stage_one(stats, slices, two.resident)
        recipe |= {
            "stage1_slices": slices,
            "stage1_tokens": slices * tokens_of(spec, trial.patch),
            "rate_encoder": learning_rate_for(
                encoder_size(spec.encoder, spec.encoder_overrides).width
            ),
        }
    return Sizing(
        trial=trial,
        cnn_share=share,
        recipe=recipe,
        stage_one=one,
        stage_two=two,
        prediction=prediction(spec, trial.patch, channels=stats.channels, classes=stats.classes),
    )
