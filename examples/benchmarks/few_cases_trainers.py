"""The trainers of `few_cases.py`: ours and nnU-Net's, with an evaluation after every epoch."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from few_cases_arms import ARMS, OURS, PRIMUS, STOCK, BiasField
from few_cases_scores import mean_dice, test_scores
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.training.nnUNetTrainer.primus.primus_trainers import nnUNet_PrimusV3S_Trainer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dinomed3d.runtime.files.atomic_files import atomic_write, new_file
from dinomed3d.runtime.files.tensor_files import read_torch
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

    def has_begun(self, part: Path) -> bool:
        """Whether a file has the curve of this very run, which has not ended."""
        return part.is_file() and vars(self).items() <= json.loads(part.read_text()).items()

    @property
    def schedule_epochs(self) -> float:
        """Length of nnU-Net's own schedule, in epochs of `every` steps."""
        return (self.steps if self.steps >= SHORTEST_SCHEDULE else FULL_SCHEDULE) / self.every


def seed_all(seed: int) -> None:
    """Seed the generators that training draws from.

    Args:
        seed: any number.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


class Scored:
    """All trainers' part: the cases of a run, and an evaluation instead of what nnU-Net does after an epoch."""

    run: Run
    result: dict[str, Any]
    tests: list[Path]
    out: Path
    cpu_start: float
    """Processor time of this process when the run began, s, less what it had taken before."""
    goes_on = True
    """Whether a run that was interrupted is taken up, and not begun again."""

    def do_split(self) -> tuple[list[str], list[str]]:
        """The run's cases; nnU-Net's validation gets one of them, it is not read."""
        order = np.random.default_rng(self.run.seed).permutation(len(self.training))  # type: ignore[attr-defined]
        chosen = [self.training[i] for i in order[: self.run.cases]]  # type: ignore[attr-defined]
        return chosen, chosen[:1]

    @property
    def part(self) -> Path:
        """File with the curve of a run that has not ended."""
        return self.out.with_suffix(".part")

    @property
    def state(self) -> Path:
        """File from which a run that has not ended goes on."""
        # nnU-Net removes checkpoint_latest.pth when training ends, which is before the model is scored
        return Path(self.output_folder, "checkpoint_going_on.pth")  # type: ignore[attr-defined]

    def begin(self) -> None:
        """Begin the run, or take it up where it was interrupted.

        It then goes on with the random numbers of its checkpoint, or, where that has none (nnU-Net's), with others.
        """
        self.result = vars(self.run) | {"curve": [], "cpu_s": 0.0}
        if self.goes_on and self.run.has_begun(self.part) and self.state.is_file():
            self.load_checkpoint(str(self.state))  # type: ignore[attr-defined]
            done = self.current_epoch * self.run.every  # type: ignore[attr-defined]
            seed_all(self.run.seed + done)
            self.result = json.loads(self.part.read_text())
            self.result["curve"] = [[n, dice] for n, dice in self.result["curve"] if n <= done]
            print(f"{self.run.name}: goes on after {done} steps", flush=True)
        else:
            self.forget()
        self.cpu_start = time.process_time() - self.result["cpu_s"]

    def on_epoch_end(self) -> None:
        """Score the test cases, and keep the curve and all that the run needs to go on."""
        steps = (self.current_epoch + 1) * self.run.every  # type: ignore[attr-defined]
        with self.averaged():
            dice = mean_dice(test_scores(self, self.tests[::ON_THE_WAY], surfaces=False))
        self.result["curve"].append([steps, dice])
        self.result["cpu_s"] = time.process_time() - self.cpu_start
        print(f"{self.run.name}: {steps} steps, Dice {dice:.4f}", flush=True)
        atomic_write(self.part, json.dumps(self.result).encode())
        self.write_checkpoint(self.state)
        self.current_epoch += 1  # type: ignore[attr-defined]

    def write_checkpoint(self, path: Path) -> None:
        """Write a checkpoint, which nnU-Net's loop does not; a kill leaves the former one whole."""
        self.disable_checkpointing = False
        with new_file(path) as part:
            self.save_checkpoint(str(part))  # type: ignore[attr-defined]
        self.disable_checkpointing = True

    def finish(self, scores: Mapping[str, Any]) -> None:
        """Write result and model; what the run needed to go on is not needed any more.

        Args:
            scores: of the model.
        """
        self.write_checkpoint(self.state.with_name("checkpoint_final.pth"))
        atomic_write(self.out, json.dumps(self.result | scores).encode())
        self.forget()

    def forget(self) -> None:
        """Remove what a run that has not ended would go on with."""
        for path in (self.part, self.state):
            path.unlink(missing_ok=True)

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

    def begin(self) -> None:
        """As all; the average is taken up, too."""
        super().begin()
        if ARMS[self.run.arm].ema and self.result["curve"]:
            self.average = self.new_average()
            self.average.load_state_dict(read_torch(self.average_of(self.current_epoch)))

    def on_epoch_end(self) -> None:
        """As all; the average is written before the checkpoint that it belongs to, and the former one then goes."""
        if self.average is not None:
            with new_file(self.average_of(self.current_epoch + 1)) as part:
                torch.save(self.average.state_dict(), part)
        super().on_epoch_end()
        self.average_of(self.current_epoch - 1).unlink(missing_ok=True)

    def average_of(self, epoch: int) -> Path:
        """File with the average of weights after so many epochs."""
        return self.state.with_name(f"average_{epoch}.pth")

    def forget(self) -> None:
        """As all; averages go, too."""
        super().forget()
        for path in self.state.parent.glob("average_*.pth"):
            path.unlink()

    def new_average(self) -> AveragedModel:
        """Of the weights, with the arm's decay; nothing is averaged yet."""
        kind = get_ema_multi_avg_fn(ARMS[self.run.arm].ema)
        return AveragedModel(self.network, multi_avg_fn=kind)

    def train_step(self, batch: dict) -> dict:
        """As ours, and keep the average."""
        found = super().train_step(batch)
        if ARMS[self.run.arm].ema:
            if self.average is None:
                self.average = self.new_average()
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

    goes_on = False  # nnU-Net's trainers with a warm-up cannot read their own checkpoints with torch 2.6 or later

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
