"""The trainers of `few_cases.py`: ours and nnU-Net's, with an evaluation after every epoch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from few_cases_arms import ARMS, OURS, PRIMUS, STOCK, BiasField
from few_cases_scores import mean_dice, test_scores
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.primus.primus_trainers import nnUNet_PrimusV3S_Trainer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dinomed3d.training.step.optimizer import build_optimizer
from dinomed3d.training.step.optimizer_step import OptimizerStep
from dinomed3d.training.trainer import DinoMed3DTrainer

ON_THE_WAY = 4
"""Every so many test cases are scored on the way; all of them at the end."""
FULL_SCHEDULE = 1000 * 250
"""Steps of nnU-Net's own schedule."""
SHORTEST_SCHEDULE = 100 * 250
"""Steps of the shortest run to whose end nnU-Net's schedule is drawn in, as nnUNetTrainer_100epochs does; of shorter
ones its learning rates, made for the whole, would leave nothing, and they see the first steps of the full one."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training."""

    arm: str
    cases: int
    """Training cases, the first of the seed's order."""
    seed: int
    steps: int
    every: int
    """Steps between evaluations."""

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.arm}-{self.cases}-{self.seed}"

    @property
    def schedule_epochs(self) -> float:
        """Length of nnU-Net's own schedule, in epochs of `every` steps."""
        return (self.steps if self.steps >= SHORTEST_SCHEDULE else FULL_SCHEDULE) / self.every


class Scored:
    """All trainers' part: the cases of a run, and an evaluation instead of what nnU-Net does after an epoch."""

    run: Run
    result: dict[str, Any]
    tests: list[Path]
    out: Path

    def do_split(self) -> tuple[list[str], list[str]]:
        """The run's cases; nnU-Net's validation gets one of them, it is not read."""
        order = np.random.default_rng(self.run.seed).permutation(len(self.training))  # type: ignore[attr-defined]
        chosen = [self.training[i] for i in order[: self.run.cases]]  # type: ignore[attr-defined]
        return chosen, chosen[:1]

    def on_epoch_end(self) -> None:
        """Score the test cases, and keep the curve."""
        self.current_epoch += 1  # type: ignore[attr-defined]
        steps = self.current_epoch * self.run.every
        with self.averaged():
            dice = mean_dice(test_scores(self, self.tests[::ON_THE_WAY], surfaces=False))
        self.result["curve"].append([steps, dice])
        self.result["cpu_s"] = time.process_time() - self.result["cpu_start"]
        print(f"{self.run.name}: {steps} steps, Dice {dice:.4f}", flush=True)
        self.out.with_suffix(".part").write_text(json.dumps(self.result))

    def plot(self, *_: object) -> None:
        """No picture."""

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The network that is scored in place of the one that learns: the same, but for arms with an average."""
        yield


class ScoredDinoMed3D(Scored, DinoMed3DTrainer):
    """Ours."""

    average: AveragedModel | None = None
    """The average of the weights, where the arm has one, from the first step on."""

    def configure_optimizers(self) -> Any:
        """As ours; where the arm asks for it, the encoder learns in stage II, too."""
        found = super().configure_optimizers()
        if not ARMS[self.run.arm].full or self.stage == 1:
            return found
        encoder = self.network.encoder.encoder
        encoder.unfreeze()
        for block in encoder.vit.blocks[encoder.run_blocks :]:
            block.requires_grad_(False)
        optimizer = build_optimizer(self.network, self.recipe, stage=2, device=self.device)
        self.optimizer_step = OptimizerStep(
            optimizer, clip=self.recipe.clip, scaler=self.grad_scaler
        )
        return optimizer, None

    def train_step(self, batch: dict) -> dict:
        """As ours, and keep the average."""
        found = super().train_step(batch)
        if decay := ARMS[self.run.arm].ema:
            if self.average is None:
                kind = get_ema_multi_avg_fn(decay)
                self.average = AveragedModel(self.network, multi_avg_fn=kind)
            self.average.update_parameters(self.network)
        return found

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """The average is the network."""
        own = self.network
        self.network = own if self.average is None else self.average.module
        try:
            yield
        finally:
            self.network = own

    def get_training_transforms(self, *args: Any, **kwargs: Any) -> Any:
        """As ours, after a bias field in half of the patches where the arm asks for it."""
        transforms = super().get_training_transforms(*args, **kwargs)
        if not ARMS[self.run.arm].bias_field:
            return transforms
        return ComposeTransforms([RandomTransform(BiasField(), apply_probability=0.5), transforms])


class ScoredStock(Scored, nnUNetTrainer):
    """nnU-Net's own, with its schedule; epochs of this run are of another length."""

    def configure_optimizers(self) -> Any:
        """As nnU-Net."""
        optimizer, scheduler = super().configure_optimizers()
        scheduler.max_steps = self.run.schedule_epochs
        return optimizer, scheduler


class ScoredPrimus(Scored, nnUNet_PrimusV3S_Trainer):
    """nnU-Net's trainer of PrimusV3-S, which warms up for a twentieth of its schedule."""

    def configure_optimizers(self, stage: str = "warmup_all") -> Any:
        """As nnU-Net."""
        epochs, self.num_epochs = self.num_epochs, self.run.schedule_epochs
        self.warmup_duration_whole_net = max(1, round(self.num_epochs / 20))
        try:
            return super().configure_optimizers(stage)
        finally:
            self.num_epochs = epochs


TRAINERS: Mapping[str, Any] = {OURS: ScoredDinoMed3D, STOCK: ScoredStock, PRIMUS: ScoredPrimus}
"""By the names of the trainers whose part they are."""
for name, scored in TRAINERS.items():
    # nnU-Net names result folders and checkpoints after the class; any command can then predict with these models
    scored.__name__ = name
