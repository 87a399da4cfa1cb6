"""How training runs, as data: stage lengths, rates, schedule; and what may override it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Both stages of a training run."""

    weights: str = "hub"
    """Where the encoder starts: a file, a directory, "hub", or "none" (random)."""
    stage1_epochs: int = 50
    """Epochs of the 2.5D proxy task; 0 leaves stage I out."""
    stage2_epochs: int = 450
    """Epochs of the whole network."""
    iterations_per_epoch: int = 250
    """Optimizer steps per epoch, as in nnU-Net."""
    val_iterations_per_epoch: int = 50
    """Validation batches per epoch (online pseudo Dice)."""
    stage1_slices: int = 96
    """Slices that stage I draws from each batch, at most; several GPUs share them."""
    stage1_tokens: int = 16384
    """Tokens of all slices on one GPU, at most: what a full fine-tune keeps for backward."""
    foreground_share: float = 0.67
    """Share of these that show foreground, where there are enough."""
    rate_encoder: float = 5e-5
    """Peak learning rate of the encoder in stage I; `recipe_from` takes ten times a plan's for random
    weights, where nothing is to be preserved."""
    rate_proxy: float = 1e-3
    """Peak learning rate of stage I's linear head."""
    rate_adapters: float = 5e-4
    """Peak learning rate of low-rank updates and 3D adapters in stage II."""
    rate_decoder: float = 2e-3
    """Peak learning rate of neck, detail stream, gate and decoder in stage II."""
    weight_decay: float = 0.01
    """AdamW's decay; biases, norms and gains are not decayed."""
    warmup: float = 0.05
    """Share of a stage over which rates rise linearly; then they fall as half a cosine."""
    clip: float = 1.0
    """Largest norm of all gradients together."""
    activation_checkpointing: bool = False
    """Keep only the input of each transformer block for the backward pass and run the block again
    there: a tenth of stage I's activations and a quarter of stage II's, for a third more time."""

    def __post_init__(self) -> None:
        """Check every field; nothing is changed."""
        for name in ("stage1_epochs", "val_iterations_per_epoch"):
            if getattr(self, name) < 0:
                raise UserError(f"recipe: {name!r} must not be negative, got {getattr(self, name)}")
        sizes = ["stage2_epochs", "iterations_per_epoch", "stage1_slices", "stage1_tokens", "clip"]
        rates = ["rate_encoder", "rate_proxy", "rate_adapters", "rate_decoder"]
        for name in [*sizes, *rates]:
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"recipe: {name!r} must be positive, got {getattr(self, name)}")
        if self.val_iterations_per_epoch < 1:
            raise UserError(
                "recipe: 'val_iterations_per_epoch' must be at least 1, nnU-Net logs it"
            )
        if not 0 <= self.weight_decay < math.inf:
            raise UserError(f"recipe: 'weight_decay' must not be negative, got {self.weight_decay}")
        if not 0 <= self.warmup < 1 or not 0 <= self.foreground_share <= 1:
            raise UserError("recipe: 'warmup' must be in [0, 1) and 'foreground_share' in [0, 1]")

    def stage(self, epoch: int) -> int:
        """1 or 2, for an epoch counted from 0."""
        return 1 if epoch < self.stage1_epochs else 2

    def check_stage(self, stage: int, *, epoch: int, name: str) -> None:
        """Stage I cannot grow once it is over.

        Args:
            stage: that the checkpoint is in.
            epoch: that it goes on with.
            name: of the checkpoint, for messages.

        Raises:
            UserError: it would.
        """
        if stage == 2 and self.stage(epoch) == 1:
            raise UserError(
                f"DinoMed3DTrainer: {name} is in stage II after {epoch} epochs, so stage I cannot be "
                f"{self.stage1_epochs} epochs long any more; unset DINOMED3D_STAGE1_EPOCHS"
            )

    def slices_per_step(self, tokens: int, *, processes: int = 1) -> int:
        """Slices that stage I draws: within both bounds, at least 2.

        Args:
            tokens: of each slice.
            processes: that share the batch; the number is that of each.
        """
        return max(2, min(self.stage1_slices // processes, self.stage1_tokens // tokens))

    def rate_factor(self, epoch: int, iteration: int) -> float:
        """What peak rates are multiplied with at a step; a function of place alone, so it resumes.

        Args:
            epoch: from 0, over both stages.
            iteration: from 0, within the epoch.

        Returns:
            Above 0, at most 1: linear warm-up, then (1 + cos) / 2, for each stage by itself.
        """
        first = 0 if self.stage(epoch) == 1 else self.stage1_epochs
        epochs = self.stage1_epochs if self.stage(epoch) == 1 else self.stage2_epochs
        total = epochs * self.iterations_per_epoch
        step = (epoch - first) * self.iterations_per_epoch + iteration
        warm = round(self.warmup * total)
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


RECIPE_VARIABLES: Mapping[str, str] = {
    "DINOMED3D_WEIGHTS": "weights",
    "DINOMED3D_STAGE1_EPOCHS": "stage1_epochs",
    "DINOMED3D_STAGE2_EPOCHS": "stage2_epochs",
    "DINOMED3D_ITERATIONS_PER_EPOCH": "iterations_per_epoch",
    "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "val_iterations_per_epoch",
    "DINOMED3D_STAGE1_SLICES": "stage1_slices",
    "DINOMED3D_RATE_ENCODER": "rate_encoder",
    "DINOMED3D_RATE_ADAPTERS": "rate_adapters",
    "DINOMED3D_RATE_DECODER": "rate_decoder",
}
SPEC_VARIABLES: Mapping[str, str] = {
    "DINOMED3D_ENCODER": "encoder",
    "DINOMED3D_ENCODER_OVERRIDES": "encoder_overrides",
    "DINOMED3D_VOXELS_PER_TOKEN": "voxels_per_token",
    "DINOMED3D_SLICES": "slices",
    "DINOMED3D_PARTS": "parts",
}


def _parse(variable: str, text: str, default: Any) -> Any:
    """The value that a variable's text means, in the type of the field's default."""
    try:
        if isinstance(default, bool | str):
            return text
        if isinstance(default, int | float):
            return type(default)(text)
        if isinstance(default, tuple):
            return tuple(part.strip() for part in text.split(",") if part.strip())
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return value
    except ValueError as error:
        kind = {int: "a whole number", float: "a number"}.get(type(default), "a JSON object")
        raise UserError(f"environment variable {variable} must be {kind}, got {text!r}") from error


def _overridden(base: Any, variables: Mapping[str, str], environ: Mapping[str, str]) -> Any:
    set_ones = {v: environ[v] for v in variables if environ.get(v, "").strip()}
    changes = {
        variables[v]: _parse(v, text, getattr(base, variables[v])) for v, text in set_ones.items()
    }
    return replace(base, **changes)


def recipe_from(plan: Mapping[str, Any], environ: Mapping[str, str]) -> Recipe:
    """The recipe of a plan's configuration, then of the environment.

    Args:
        plan: the configuration's "dinomed3d_recipe" entry, or nothing.
        environ: the process's environment.

    Raises:
        UserError: an unknown field, or a value that is no such thing.
    """
    unknown = plan.keys() - {f.name for f in fields(Recipe)}
    if unknown:
        raise UserError(
            f"plan: unknown recipe fields {', '.join(sorted(unknown))}; the plan was made by another "
            "version of dinomed3d, plan again or install that version"
        )
    for name, value in plan.items():
        default = getattr(Recipe(), name)
        kinds = (int, float) if type(default) is float else (type(default),)
        if type(value) not in kinds:
            raise UserError(
                f"plan: recipe field {name!r} must be of type {type(default).__name__}, got {value!r}; mend "
                "the plan, or plan again"
            )
    recipe: Recipe = _overridden(Recipe(**plan), RECIPE_VARIABLES, environ)
    if recipe.stage1_slices > (planned := Recipe(**plan)).stage1_slices:
        # more slices than planned were asked for, so the bound that was planned for fewer goes along
        share = planned.stage1_tokens / planned.stage1_slices
        recipe = replace(recipe, stage1_tokens=math.ceil(share * recipe.stage1_slices))
    asked = environ.get("DINOMED3D_RATE_ENCODER")
    if recipe.weights == "none" and "weights" not in plan and not asked:
        # A checkpoint's recipe, which is read here too, names its weights: it has had this.
        recipe = replace(recipe, rate_encoder=10 * recipe.rate_encoder)
    return recipe


def spec_from(spec: NetworkSpec, environ: Mapping[str, str]) -> NetworkSpec:
    """A network with what the environment changes in it.

    Raises:
        UserError: a value that is no such thing, or that makes an impossible network.
    """
    changed: NetworkSpec = _overridden(spec, SPEC_VARIABLES, environ)
    return changed
