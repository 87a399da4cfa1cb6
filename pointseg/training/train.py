"""The training loop: one device or many, resumable at any step to the same trajectory."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.out_of_memory import OutOfMemory, ran_out_of_memory
from pointseg.cloud import Cloud
from pointseg.config.recipe import Recipe, read_recipe
from pointseg.datasets.dataset import Dataset
from pointseg.loading.samples import Samples, Stream, join, or_raise
from pointseg.training.checkpoint import DISTILLED, FORMAT, read_checkpoint
from pointseg.training.fabric_batch import Held, Reader
from pointseg.training.graceful_stop import Interruption, leave_signals_to_parent
from pointseg.training.logger import TrainingLogger
from pointseg.training.memory import insufficient_memory_warning
from pointseg.training.mix3d import mix3d
from pointseg.training.optimizer import build_optimizer, build_scheduler
from pointseg.training.run_dir import BEST, LAST, backup_previous_run, delete_backup
from pointseg.training.schedule import Batches, Schedule
from pointseg.training.segmentation_task import Segmentation
from pointseg.training.task import TrainingTask

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache

LEAST_SEEN = 0.05
"""Share of the points; where images show fewer, that is said."""
MOST_LEFT_OUT = 20
"""Steps in a row whose loss overflowed in float16, before the run is given up."""


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """One training run."""

    dataset: Dataset
    recipe: Recipe
    out: Path
    """Folder of the run; made if need be."""
    objective: TrainingTask | None = None
    """What is learned; None: the classes of the labels."""
    cache: FeatureCache | None = None
    """Where the features of images are, for recipes with images; None: images are read and encoded."""
    resume: bool = False
    """Go on from ``last.pt`` in ``out``."""
    init: Callable[[nn.Module], str] | None = None
    """Sets the weights a new run starts from; returns what it did, for the log."""
    accelerator: str = "cpu"
    devices: int = 1
    nodes: int = 1
    precision: str = "32-true"
    """As Fabric names it: 32-true, 16-mixed, bf16-mixed."""
    parts: int = 1
    """Parts that each device's share of a batch is cut into, against lack of memory."""
    workers: int = 0
    seed: int = 0
    log: Callable[[str], None] = print


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What a finished run has."""

    best: Path
    last: Path
    score: float
    """The best that validation found: of segmentation its mIoU over voxels."""
    steps: int


def train(spec: TrainSpec) -> TrainResult:
    """Train to the end of the recipe, validating on the way; writes ``last.pt``, ``best.pt``, ``metrics.csv``.

    Raises:
        UserError: a scene or label that does not fit, a batch that does not fit the memory, a loss
            that is not finite, a checkpoint of another recipe.
        KeyboardInterrupt: after ``last.pt`` was written.
    """
    many = spec.devices * spec.nodes > 1
    fabric = Fabric(
        accelerator=spec.accelerator,
        devices=spec.devices,
        num_nodes=spec.nodes,
        strategy="ddp" if many else "auto",
        precision=spec.precision,  # type: ignore[arg-type]
    )
    fabric.launch()
    run = _Run(spec, fabric)
    run.to_the_end()
    return TrainResult(best=spec.out / BEST, last=spec.out / LAST, score=run.best, steps=run.steps)


class _Run:
    """The state of a run between steps."""

    def __init__(self, spec: TrainSpec, fabric: Fabric) -> None:
        self.spec, self.fabric, self.recipe = spec, fabric, spec.recipe
        self.objective = spec.objective or Segmentation(spec.dataset, spec.recipe)
        self.samples, self.validation = (
            Samples(
                spec.dataset,
                spec.recipe,
                training=training,
                seed=spec.seed,
                cache=spec.cache,
                labelled=self.objective.labelled,
            )
            for training in (True, False)
        )
        self.schedule = Schedule(
            scenes=len(self.samples),
            batch_size=spec.recipe.batch_size,
            seed=spec.seed,
            devices=fabric.world_size,
            parts=spec.parts,
        )
        self.steps = self.schedule.steps(spec.recipe.epochs)
        torch.manual_seed(spec.seed)
        model = self.objective.build()
        resumed = self._resumed() if spec.resume else None
        if resumed is not None:
            model.load_state_dict(resumed["model"])
        elif spec.init is not None:
            spec.log(spec.init(model))
        _settle_norms(model, self.steps)
        self.network = model
        optimizer = build_optimizer(model, spec.recipe.optimizer)
        self.scheduler = build_scheduler(optimizer, spec.recipe.optimizer, steps=self.steps)
        self.model, self.optimizer = fabric.setup(Reader(model), optimizer)
        self.step, self.validated, self.best = 0, 0, float("-inf")
        self.largest, self.not_finite = 0, 0
        self.shown = (0, 0)
        """Points that images showed, and all points, since the last validation."""
        self.journal = TrainingLogger(
            spec.out,
            main=fabric.is_global_zero,
            losses=(*self.objective.losses_named, *(("seen",) if self._shows else ())),
            scores=self.objective.metric_names,
        )
        if resumed is not None:
            self._restore(resumed["training"])
        else:
            self.objective.begin()
            self._make_room()

    def _make_room(self) -> None:
        """Set aside the run that was in the folder."""
        kept = backup_previous_run(self.spec.out) if self.fabric.is_global_zero else None
        if kept is not None:
            self.spec.log(
                f"the run that was in {self.spec.out} lies in {kept} until this one has its first {BEST}"
            )

    def to_the_end(self) -> None:
        """All steps that are left."""
        rounds = min(self.recipe.evaluations, self.steps)
        evaluate_at = {round((k + 1) * self.steps / rounds) for k in range(rounds)}
        with closing(self._batches()) as batches:
            if self.step in evaluate_at and self.validated != self.step:
                self._evaluate()
            with Interruption() as stop, self.journal.progress(self.step, self.steps) as progress:
                while self.step < self.steps:
                    started = time.perf_counter()
                    numbers = self._one_step(batches)
                    self.step += 1
                    numbers["seconds"] = time.perf_counter() - started
                    progress.update(numbers["loss"])
                    self.journal.training(self.step, numbers)
                    if self.step in evaluate_at:
                        self._evaluate()
                    if self._agreed(stop.asked):
                        self.save(LAST)
                        self.journal.write()
                        raise KeyboardInterrupt
        self.journal.close()

    def _agreed(self, asked: bool) -> bool:
        """Whether to stop: all devices after the same step, whichever was asked."""
        if self.fabric.world_size == 1:
            return asked
        flag = torch.tensor(int(asked), device=self.fabric.device)
        found = self.fabric.all_reduce(flag, reduce_op="max")
        assert isinstance(found, Tensor)
        return bool(found)

    def _one_step(self, batches: Iterator[Cloud | UserError]) -> dict[str, float]:
        # The generators follow from seed and step alone: a resumed run draws what it would have drawn.
        seeds = np.random.SeedSequence([self.spec.seed, self.step, self.fabric.global_rank])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        self.model.train()
        self.optimizer.zero_grad()
        total: dict[str, Tensor] = {}
        points, seen = 0, 0
        for part in range(self.spec.parts):
            cloud = or_raise(next(batches))
            draw = [self.spec.seed, 1, self.step, self.fabric.global_rank, part]
            cloud = mix3d(cloud, self.recipe.mix3d, np.random.default_rng(draw))
            points += len(cloud)
            if cloud.image_mask is not None:
                seen += int(cloud.image_mask.any(1).sum())
            if self.largest == 0:
                self._warn_memory(cloud)
            last = part == self.spec.parts - 1
            try:
                with self.fabric.no_backward_sync(self.model, enabled=not last):  # type: ignore[arg-type]
                    losses = self._losses(cloud.to(self.fabric.device))
                    self.fabric.backward(losses["loss"].div(self.spec.parts))
            except (RuntimeError, MemoryError) as error:
                if ran_out_of_memory(error):
                    raise OutOfMemory(points=len(cloud), fitted=self.largest) from error
                raise
            self.largest = max(self.largest, len(cloud))
            for name, value in losses.items():
                total[name] = (
                    total.get(name, torch.zeros(())) + value.detach().cpu() / self.spec.parts
                )
        numbers = {name: float(value) for name, value in total.items()}
        if self._shows:
            numbers["seen"] = seen / max(1, points)
            self.shown = (self.shown[0] + seen, self.shown[1] + points)
        self.not_finite = 0 if np.isfinite(numbers["loss"]) else self.not_finite + 1
        # a scaler leaves out steps that overflow, and lowers its scale
        if self.not_finite > (0 if self._scaler is None else MOST_LEFT_OUT):
            raise UserError(
                f"step {self.step}: the loss is {numbers['loss']}; lower the rate "
                "(--override optimizer.lr=...) or train in another precision (--precision)"
            )
        clip = self.recipe.optimizer.clip_norm
        if clip is not None:
            self.fabric.clip_gradients(self.model, self.optimizer, max_norm=clip)
        self.optimizer.step()
        numbers["lr"] = float(self.scheduler.get_last_lr()[0])
        self.scheduler.step()
        return numbers | {"points": float(points)}

    @property
    def _shows(self) -> bool:
        """Whether there are images."""
        return self.recipe.images is not None

    def _doubt_images(self) -> None:
        """Say once that images show hardly a point: a wrong calibration trains without an error."""
        seen, points = self.shown
        if points and seen < LEAST_SEEN * points and self.fabric.is_global_zero:
            self.spec.log(
                f"the images show {100 * seen / points:.1f} % of the points: are poses and units right? "
                "Look with pointseg-check-cameras"
            )
        self.shown = (0, 0)

    def _warn_memory(self, cloud: Cloud) -> None:
        """Say before the first step on a CPU that it may not fit: the system will not."""
        if self.fabric.device.type != "cpu" or not self.fabric.is_global_zero:
            return
        doubt = insufficient_memory_warning(
            self.recipe.backbone,
            parameters=sum(p.numel() for p in self.network.parameters() if p.requires_grad),
            voxels=len(cloud),
            samples=self.recipe.batch_size // (self.spec.parts * self.fabric.world_size),
            parts=self.spec.parts,
            devices=self.spec.devices,
        )
        if doubt is not None:
            self.spec.log(doubt)

    def _losses(self, cloud: Cloud) -> dict[str, Tensor]:
        return self.objective.losses(self.model(Held(cloud)), cloud)

    def _evaluate(self) -> None:
        """One round of validation, with a checkpoint before and, where it was the best, after it."""
        self._doubt_images()
        self.save(LAST)  # so that a validation that fails costs nothing; resuming begins with it
        scores, details = self.objective.scores(self.validate())
        self.validated = self.step
        score = scores[self.objective.metric_names[0]]
        self.journal.validation(self.step, scores, details)
        if score > self.best:
            self.best = score
            self.save(BEST)
            if self.fabric.is_global_zero:
                delete_backup(self.spec.out)
        self.save(LAST)

    @torch.no_grad()
    def validate(self) -> Tensor:
        """The objective's measures of every validation scene, one point per voxel; devices share the scenes.

        The bare network is asked, not the wrapped one, which would wait for devices that have no scene.
        """
        self.model.eval()
        if self.fabric.world_size > 1:  # all see what is saved: the first device's statistics
            for buffer in self.network.buffers():
                torch.distributed.broadcast(buffer, src=0)
        total: Tensor | None = None
        mine = range(self.fabric.global_rank, len(self.validation), self.fabric.world_size)
        loader = self._loader(self.validation, [[(0, index)] for index in mine])
        with closing(Stream(loader)) as samples:
            for sample in samples:
                cloud = or_raise(sample)
                try:
                    cloud = cloud.to(self.fabric.device)
                    with self.fabric.autocast():
                        found = self.objective.measure(self.network(cloud), cloud)
                except (RuntimeError, MemoryError) as error:
                    if ran_out_of_memory(error):
                        raise UserError(
                            f"out of memory with the {len(cloud)} voxels of a whole validation scene; the run "
                            "is kept: --resume it where there is more memory, or begin one with a coarser grid "
                            "(--override voxel_m=...)"
                        ) from error
                    raise
                total = found.cpu() if total is None else total + found.cpu()
        if total is None:  # a device without a scene
            total = self.objective.nothing()
        if self.fabric.world_size == 1:
            return total
        summed = self.fabric.all_reduce(total.to(self.fabric.device), reduce_op="sum")
        assert isinstance(summed, Tensor)
        return summed.cpu()

    def save(self, name: str) -> None:
        """``last.pt`` with all that resuming needs, ``best.pt`` without it."""
        if not self.fabric.is_global_zero:
            return
        scaler = self._scaler
        training = {
            "step": self.step,
            "validated": self.validated,
            "best": self.best,
            "seed": self.spec.seed,
            "devices": self.fabric.world_size,
            "parts": self.spec.parts,
            "scenes": self._scenes(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            **self.objective.state(),
        }
        self.objective.save(
            self.spec.out / name, self.network.state_dict(), training if name == LAST else None
        )

    def _scenes(self) -> str:
        """Stands for which scenes are trained on and validated with, in which order."""
        names = json.dumps([self.samples.scenes, self.validation.scenes])
        return hashlib.sha256(names.encode("utf-8", "surrogateescape")).hexdigest()

    def _resumed(self) -> dict[str, Any]:
        content = read_checkpoint(self.spec.out / LAST, (FORMAT, DISTILLED))
        if "training" not in content:
            raise UserError(f"{self.spec.out / LAST}: holds no state to resume from")
        if read_recipe(content["recipe"]) != self.recipe:
            raise UserError(
                f"--resume: {self.spec.out / LAST} was trained by another recipe; "
                "give the options of the first call, or another --out"
            )
        self.objective.check(self.spec.out / LAST, content)
        if content["training"].get("scenes", self._scenes()) != self._scenes():
            raise UserError(
                f"--resume: {self.spec.dataset.name} holds other scenes than when the run was begun; "
                "the trajectory would not be the same: begin anew, perhaps with --init from its best.pt"
            )
        for name in ("seed", "parts"):
            if content["training"][name] != getattr(self.spec, name):
                raise UserError(
                    f"--resume: the run was begun with {name} {content['training'][name]}, "
                    f"not {getattr(self.spec, name)}; the trajectory would not be the same"
                )
        return content

    def _restore(self, training: dict[str, Any]) -> None:
        self.step, self.best = training["step"], training["best"]
        self.validated = training.get("validated", self.step)
        self.optimizer.load_state_dict(training["optimizer"])
        self.scheduler.load_state_dict(training["scheduler"])
        self.objective.restore(training)
        scaler = self._scaler
        if scaler is not None and training["scaler"] is not None:
            scaler.load_state_dict(training["scaler"])
        self.journal.rewind(self.step)
        if training["devices"] != self.fabric.world_size:
            self.spec.log(
                f"resumed on {self.fabric.world_size} devices, begun on {training['devices']}: "
                "the batches are the same, batch statistics and random numbers are not"
            )

    @property
    def _scaler(self) -> Any:
        """Of gradients in float16; else None."""
        return getattr(self.fabric.strategy.precision, "scaler", None)

    def _batches(self) -> Stream:
        batches = Batches(
            self.schedule, device=self.fabric.global_rank, start=self.step, stop=self.steps
        )
        return Stream(self._loader(self.samples, batches))

    def _loader(self, samples: Samples, batches: Any) -> DataLoader[Cloud | UserError]:
        return DataLoader(
            samples,
            batch_sampler=batches,
            num_workers=self.spec.workers,
            collate_fn=join,
            worker_init_fn=leave_signals_to_parent,
            pin_memory=self.fabric.device.type == "cuda",
        )


def _settle_norms(model: nn.Module, steps: int) -> None:
    """Let batch norms remember a twentieth of a short run.

    Published backbones average over about a hundred steps (momentum 0.01). In a run of some dozen
    steps their running statistics, which validation uses, would still be the initial ones.
    """
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d) and module.momentum is not None:
            module.momentum = max(module.momentum, min(0.1, 20 / steps))
