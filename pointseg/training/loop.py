"""The training loop: steps, validation, checkpoints; every random number follows from seed and step."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.few_steps import few_steps_warning
from pointseg.cloud import Cloud
from pointseg.loading.samples import UnusableScene, or_raise
from pointseg.training.run.graceful_stop import GracefulStop
from pointseg.training.run.logger import Progress, TrainingLogger
from pointseg.training.run.resume import read_resumable
from pointseg.training.run.run_dir import (
    BEST,
    LAST,
    backup_previous_run,
    delete_backup,
    note_unusable,
)
from pointseg.training.run.run_scenes import RunScenes
from pointseg.training.run.scene_lists import Scene
from pointseg.training.run.seen_labels import SeenLabels
from pointseg.training.run.spec import TrainSpec
from pointseg.training.step.late_numbers import LateNumbers, StepNumbers
from pointseg.training.step.learner import GRADIENT_NORM, Learner
from pointseg.training.step.memory import insufficient_memory_warning
from pointseg.training.step.schedule import Schedule
from pointseg.training.tasks.segmentation import Segmentation
from pointseg.training.tasks.task import TrainingTask
from pointseg.training.validate import validate

MIN_VISIBLE = 0.05
"""Share of points visible in images below which a warning is given."""
MAX_SKIPPED = 20
"""Steps in a row whose loss may overflow in float16, which the gradient scaler skips."""


class TrainingLoop:
    """A run, and its state between steps."""

    def __init__(self, spec: TrainSpec, fabric: Fabric) -> None:
        """Build the network, or restore it from ``last.pt``."""
        self.spec, self.fabric, self.recipe = spec, fabric, spec.recipe
        self.task: TrainingTask = spec.task or Segmentation(spec.dataset, spec.recipe)
        self.scenes = RunScenes(spec, self.task, fabric)
        resumed = read_resumable(spec, self.task) if spec.resume else None
        if resumed is not None:
            self._say_gone(self.scenes.resume(resumed["training"]))
        self.schedule = Schedule(
            scenes=len(self.scenes.training),
            batch_size=spec.recipe.batch_size,
            seed=spec.seed,
            devices=fabric.world_size,
            accumulate=spec.accumulate_grad_batches,
        )
        self.steps = self.schedule.steps(spec.recipe.epochs)
        self.step, self.validated, self.best = 0, 0, float("-inf")
        self.skipped = 0
        """Steps in a row whose loss or gradient was not finite."""
        self.stop, self.numbers = GracefulStop(), LateNumbers(fabric.device)
        self.kept: int | None = None
        """The step after which the run was stopped and kept."""
        self.read_at = 0.0
        """When the numbers of a step were read last."""
        self.visible_points, self.all_points = 0, 0
        """Points visible in images, and all points, since the last validation."""
        self.labels: SeenLabels | None = None
        """What the first epoch has shown of each class; None: the task needs no labels."""
        torch.manual_seed(spec.seed)
        network = self.task.build()
        if resumed is not None:
            network.load_state_dict(resumed["model"])
        elif spec.init is not None:
            self._say(spec.init(network))
        self.learner = Learner(fabric, network, spec.recipe.optimizer, steps=self.steps)
        if spec.recipe.tune != "all":
            every = sum(p.numel() for p in network.parameters())
            self._say(f"{self.learner.parameters:,} of {every:,} parameters are trained")
        self.logger = TrainingLogger(
            spec.out,
            main=fabric.is_global_zero,
            losses=(*self.task.loss_names, *(("visible",) if self.recipe.images else ())),
            scores=self.task.metric_names,
        )
        if resumed is not None:
            self._restore(resumed["training"])
        else:
            self.task.begin()
            self._back_up()
        self._say_steps()

    def _say_steps(self) -> None:
        """Say how many steps there are, which are done, and that few of them teach little."""
        epochs, batch = self.recipe.epochs, self.recipe.batch_size
        scenes = len(self.scenes.training)
        self._say(
            f"{self.steps:,} optimizer steps: {scenes} scenes, {epochs} times, {batch} in each step"
        )
        advice = f"raise its epochs (--override epochs=..., now {epochs})"
        warning = few_steps_warning("this training", self.steps, advice)
        if self.step:
            best = f", best score so far {self.best:.4f}" if np.isfinite(self.best) else ""
            self._say(f"the run goes on after step {self.step:,} of {self.steps:,}{best}")
        elif warning is not None:
            self._say(warning)

    def _say(self, text: str) -> None:
        if self.fabric.is_global_zero:
            self.spec.log(text)

    def _say_gone(self, gone: Sequence[Scene]) -> None:
        if gone:
            names = ", ".join("/".join(scene) for scene in gone)
            self._say(
                f"the run goes on without {names}; other scenes take their place in its batches"
            )

    def _back_up(self) -> None:
        backup = backup_previous_run(self.spec.out) if self.fabric.is_global_zero else None
        if backup is not None:
            self.spec.log(
                f"the previous run in {self.spec.out} is kept in {backup} until this one has its first {BEST}"
            )

    def run(self) -> None:
        """Do all remaining steps.

        Raises:
            UserError: a scene that cannot be used, and others. What was learned until then is kept.
            KeyboardInterrupt: the user asked for it; ``last.pt`` is written.
        """
        try:
            self._run()
        except KeyboardInterrupt:
            if self.kept == self.step:  # after a second Ctrl-C it is not
                self._say(
                    f"stopped after step {self.step:,} of {self.steps:,}; {self.spec.out / LAST} holds all of it, and "
                    "the same command with --resume goes on from there"
                )
            raise
        except UnusableScene as error:
            note_unusable(self.spec.out, error.scene)
            if self.fabric.world_size == 1 and self.step:
                self._keep()
            if not (self.spec.out / LAST).exists():
                raise
            raise UserError(
                f"{error}; the run is kept: mend the file, or remove it from its split, and go on with --resume"
            ) from error
        finally:
            self.logger.close()

    def _run(self) -> None:
        rounds = min(self.recipe.evaluations, self.steps)
        evaluate_at = {round((k + 1) * self.steps / rounds) for k in range(rounds)}
        if self.task.labelled:
            self.labels = SeenLabels(
                self.fabric,
                self.spec.dataset.classes.names,
                begin=self.step,
                epoch=self.schedule.steps(1),
                validation=min(evaluate_at),
            )
        with closing(self.scenes.batches(self.schedule, self.step, self.steps)) as batches:
            if self.step in evaluate_at and self.validated != self.step:
                self._evaluate()
            with self.stop, self.logger.progress(self.step, self.steps) as progress:
                self.read_at = time.perf_counter()
                while self.step < self.steps:
                    self._step(batches)
                    self.step += 1
                    stopping = self._read(progress)
                    if self.labels is not None and (warning := self.labels.check(self.step)):
                        self._say(warning)
                    if self.step in evaluate_at:
                        stopping |= self._read(progress, everything=True)
                        self._evaluate()
                        self.read_at = time.perf_counter()
                    if stopping or (self.fabric.world_size == 1 and self.stop.requested):
                        self._keep(progress)
                        raise KeyboardInterrupt

    def _keep(self, progress: Progress | None = None) -> None:
        """Save everything that a resumed run needs."""
        self._read(progress, everything=True)
        self.save(LAST)
        self.logger.write()
        self.kept = self.step

    def _step(self, batches: Iterator[Cloud | UserError]) -> None:
        """One optimizer step; its numbers are for :meth:`_read`."""
        # The generators follow from seed and step alone: a resumed run draws what it would have drawn.
        rank, accumulated = self.fabric.global_rank, self.spec.accumulate_grad_batches
        seeds = np.random.SeedSequence([self.spec.seed, self.step, rank])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        self.learner.begin_step()
        found: list[dict[str, Tensor]] = []
        points, visible = 0, 0
        for number in range(accumulated):
            cloud = or_raise(next(batches))
            points += len(cloud)
            if self.labels is not None:
                self.labels.add(self.step, cloud)
            if cloud.image_mask is not None:
                visible += int(cloud.image_mask.any(1).sum())
            if self.learner.largest == 0:
                self._warn_memory(cloud)
            is_last = number == accumulated - 1
            found.append(
                self.learner.accumulate(cloud, self._losses, batches=accumulated, is_last=is_last)
            )
        known = {"points": float(points)}
        if self.recipe.images is not None:
            known["visible"] = visible / max(1, points)
            self.visible_points += visible
            self.all_points += points
        known["lr"], computed = self.learner.finish_step()
        if self.fabric.world_size > 1:
            computed["stop"] = self.learner.on_any_device(self.stop.requested)
        self.numbers.add(self.step, known, computed, found)

    def _read(self, progress: Progress | None, *, everything: bool = False) -> bool:
        """Check and log the numbers of the last step but one, or of all; whether some device was to stop."""
        stopping = False
        for numbers in self.numbers.read(everything=everything):
            values = numbers.values
            self._check_finite(numbers)
            now = time.perf_counter()
            values["seconds"], self.read_at = now - self.read_at, now
            if progress is not None:
                progress.update(values["loss"])
            self.logger.training(numbers.step + 1, values)
            stopping |= bool(values.get("stop", 0))
        return stopping

    def _losses(self, output: Any, cloud: Cloud) -> dict[str, Tensor]:
        return self.task.losses(output, cloud)

    def _check_finite(self, numbers: StepNumbers) -> None:
        wrong = [
            f"the {name} is {numbers.values[name]}"
            for name in ("loss", GRADIENT_NORM)
            if not np.isfinite(numbers.values.get(name, 0.0))
        ]
        self.skipped = self.skipped + 1 if wrong else 0
        if self.skipped > (0 if self.learner.scaler is None else MAX_SKIPPED):
            raise UserError(
                f"step {numbers.step}: {wrong[0]}; lower the learning rate "
                "(--override optimizer.lr=...) or train in another precision (--precision)"
            )

    def _warn_memory(self, cloud: Cloud) -> None:
        """Warn before the first step on a CPU if it may not fit."""
        if self.fabric.device.type != "cpu" or not self.fabric.is_global_zero:
            return
        accumulated = self.spec.accumulate_grad_batches
        warning = insufficient_memory_warning(
            self.recipe.backbone,
            parameters=self.learner.parameters,
            voxels=len(cloud),
            samples=self.recipe.batch_size // (accumulated * self.fabric.world_size),
            accumulated=accumulated,
            devices=self.spec.devices,
        )
        if warning is not None:
            self.spec.log(warning)

    def _warn_visibility(self) -> None:
        """Warn if images show hardly any point: training with a wrong calibration raises no error."""
        share = self.visible_points / max(1, self.all_points)
        if self.all_points and share < MIN_VISIBLE and self.fabric.is_global_zero:
            self.spec.log(
                f"only {100 * share:.1f} % of the points are visible in images: are camera poses and units "
                "right? Check with pointseg-check-cameras"
            )
        self.visible_points, self.all_points = 0, 0

    def _evaluate(self) -> None:
        """Validate, with a checkpoint before and, if it is the best so far, after."""
        self._warn_visibility()
        self.save(LAST)  # if validation fails nothing is lost; resuming begins with it
        scores, details = self.task.scores(self.validate())
        self.validated = self.step
        self.logger.validation(self.step, scores, details)
        score = scores[self.task.metric_names[0]]
        if score > self.best:
            self.best = score
            self.save(BEST)
            if self.fabric.is_global_zero:
                delete_backup(self.spec.out)
        self.save(LAST)

    def validate(self) -> Tensor:
        """Metrics of the task, summed over all validation scenes and devices."""
        return validate(self.fabric, self.learner.network, self.task, self.scenes.to_validate())

    def save(self, name: str) -> None:
        """Write ``last.pt`` with all that resuming needs, or ``best.pt`` without it."""
        if not self.fabric.is_global_zero:
            return
        state = {
            "step": self.step,
            "validated": self.validated,
            "best": self.best,
            "seed": self.spec.seed,
            "precision": self.spec.precision,
            "devices": self.fabric.world_size,
            "accumulate_grad_batches": self.spec.accumulate_grad_batches,
            "log": self.logger.state(),
            **self.scenes.lists.state(),
            **self.learner.state(),
            **self.task.state(),
        }
        weights = self.learner.network.state_dict()
        self.task.save(self.spec.out / name, weights, state if name == LAST else None)

    def _restore(self, state: dict[str, Any]) -> None:
        self.step, self.best = state["step"], state["best"]
        self.validated = state.get("validated", self.step)
        self.learner.restore(state)
        self.task.restore(state)
        self.logger.restore(state.get("log"), self.step)
        if state["devices"] != self.fabric.world_size:
            self.spec.log(
                f"resumed on {self.fabric.world_size} devices, started on {state['devices']}: batches are the "
                "same, batch statistics and random numbers are not"
            )
        if state["precision"] != self.spec.precision:
            self._say(
                f"the run goes on in {self.spec.precision}, it began in {state['precision']}: the end will not be that "
                f"of one precision (--precision {state['precision']})"
            )
