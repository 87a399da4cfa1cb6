"""Which runs may be resumed: only those that would follow the same trajectory as an uninterrupted one."""

from __future__ import annotations

from typing import Any

from dinomed3d.runtime.errors import UserError
from pointseg.config.serialization import read_recipe
from pointseg.models.checkpoint import DISTILLED, FORMAT, read_checkpoint
from pointseg.training.run.run_dir import LAST
from pointseg.training.run.spec import TrainSpec
from pointseg.training.tasks.task import TrainingTask


def read_resumable(spec: TrainSpec, task: TrainingTask) -> dict[str, Any]:
    """The content of ``last.pt`` of the run that is resumed.

    Args:
        spec: of the resumed run.
        task: likewise.

    Raises:
        UserError: the run had another recipe, task, seed or batch split; or no state to resume.
    """
    path = spec.out / LAST
    content = read_checkpoint(path, (FORMAT, DISTILLED))
    if "training" not in content:
        raise UserError(f"--resume: {path} holds no state to resume from")
    if read_recipe(content["recipe"]) != spec.recipe:
        raise UserError(
            f"--resume: {path} was trained with another recipe; give the options of the first call, or another "
            "--out"
        )
    task.check(path, content)
    state = content["training"]
    state.setdefault("accumulate_grad_batches", state.get("parts"))  # its name in older checkpoints
    state.setdefault("precision", spec.precision)  # not in older checkpoints
    for name in ("seed", "accumulate_grad_batches"):
        if state[name] != getattr(spec, name):
            raise UserError(
                f"--resume: the run was started with {name} {state[name]}, not {getattr(spec, name)}; the "
                f"trajectory would not be the same: give --{name.replace('_', '-')} {state[name]}, or start another "
                f"run from its weights (--init {path}, another --out)"
            )
    return content
