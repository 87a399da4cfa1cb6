"""Training a network on one device or several, resumable after any step to the same trajectory."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

from lightning_fabric import Fabric

from dinomed3d.runtime.hardware.device import tf32_products
from pointseg.config.folder_recipe import read_as_stated
from pointseg.datasets.look_over import leave_out, look_over, tell_remarks
from pointseg.datasets.named_scenes import NamedScenes
from pointseg.training.loop import TrainingLoop
from pointseg.training.run.run_dir import BEST, LAST, lock_run_dir
from pointseg.training.run.spec import TrainResult, TrainSpec

__all__ = ["BEST", "LAST", "TrainResult", "TrainSpec", "train"]

FABRIC_PRECISION = {"float32": "32-true", "float16": "16-mixed", "bfloat16": "bf16-mixed"}


def train(spec: TrainSpec) -> TrainResult:
    """Train to the end of the recipe with validation in between; writes ``last.pt``, ``best.pt``, ``metrics.csv``.

    Raises:
        UserError: another process trains in the folder; a scene or label that does not fit, a batch that does not fit
            into memory, a loss that is not finite, a checkpoint of another recipe.
        KeyboardInterrupt: after ``last.pt`` was written.
    """
    fabric = Fabric(
        accelerator=spec.device,
        devices=spec.devices,
        num_nodes=spec.nodes,
        strategy="ddp" if spec.devices * spec.nodes > 1 else "auto",
        precision=FABRIC_PRECISION[spec.precision],  # type: ignore[arg-type]
    )
    fabric.launch()
    with lock_run_dir(spec.out) if fabric.is_global_zero else nullcontext(), tf32_products():
        _look_over(spec, fabric)
        loop = TrainingLoop(spec, fabric)
        loop.run()
    return TrainResult(
        best=spec.out / BEST, last=spec.out / LAST, score=loop.best, steps=loop.steps
    )


def _look_over(spec: TrainSpec, fabric: Fabric) -> None:
    """Look at all files before the first step; one device does, for all of them.

    Raises:
        UserError: some are damaged, or lack what is needed.
    """
    recipe, dataset, found = spec.recipe, spec.dataset, []
    if recipe.dataset == "folder":
        read_as_stated(dataset, recipe, overrides=True)
    if fabric.is_global_zero:
        found = look_over(dataset, (*recipe.train_splits, *recipe.val_splits))
    # what was left out before the cameras were checked, by the first device alone
    before: Iterable[tuple[str, str]] = getattr(dataset, "left_out", ())
    if fabric.world_size > 1:
        found, before = fabric.broadcast((found, before))
    if isinstance(dataset, NamedScenes):
        dataset.leave_out(before)
    leave_out(dataset, found, spec.log if fabric.is_global_zero else lambda text: None)
    if fabric.is_global_zero:
        tell_remarks(dataset, spec.log)
