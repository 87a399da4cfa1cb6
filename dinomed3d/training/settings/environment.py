"""Settings from environment variables: nnU-Net's commands have no option for them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from dinomed3d.networks import NetworkSpec
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.suggestion import suggestion
from dinomed3d.training.settings.recipe import Recipe

RECIPE_VARIABLES: Mapping[str, str] = {
    "DINOMED3D_WEIGHTS": "weights",
    "DINOMED3D_START_FROM": "start_from",
    "DINOMED3D_STAGE1_EPOCHS": "stage1_epochs",
    "DINOMED3D_STAGE2_EPOCHS": "stage2_epochs",
    "DINOMED3D_ITERATIONS_PER_EPOCH": "iterations_per_epoch",
    "DINOMED3D_VAL_ITERATIONS_PER_EPOCH": "val_iterations_per_epoch",
    "DINOMED3D_STAGE1_SLICES": "stage1_slices",
    "DINOMED3D_RATE_ENCODER": "rate_encoder",
    "DINOMED3D_RATE_ADAPTERS": "rate_adapters",
    "DINOMED3D_RATE_DECODER": "rate_decoder",
    "DINOMED3D_CHECKPOINT_MINUTES": "checkpoint_minutes",
}
"""Variables that override a field of Recipe."""
ORIGIN = ("DINOMED3D_WEIGHTS", "DINOMED3D_START_FROM")
"""Those that say what a network starts from; once it is trained, they change nothing."""
SPEC_VARIABLES: Mapping[str, str] = {
    "DINOMED3D_ENCODER": "encoder",
    "DINOMED3D_ENCODER_OVERRIDES": "encoder_overrides",
    "DINOMED3D_VOXELS_PER_TOKEN": "voxels_per_token",
    "DINOMED3D_SLICES_PER_TOKEN": "slices_per_token",
    "DINOMED3D_SLICES": "slices",
    "DINOMED3D_COMPONENTS": "components",
    "DINOMED3D_TUNED_BLOCKS": "tuned_blocks",
    "DINOMED3D_INTER_SLICE": "inter_slice",
}
"""Variables that override a field of NetworkSpec."""


def unknown_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that begin like ours and that nothing reads, each with the name that was probably meant.

    Returns:
        Name -> `; did you mean DINOMED3D_WEIGHTS?`, or an empty text where none is close.
    """
    known = {**RECIPE_VARIABLES, **SPEC_VARIABLES}
    prefix = "DINOMED3D_"
    endings = [variable.removeprefix(prefix) for variable in known]
    # compared without the beginning that all share, which would make any two of them alike
    return {
        name: suggestion([name.removeprefix(prefix)], endings, closeness=0.8).replace(
            "mean ", f"mean {prefix}"
        )
        for name in sorted(environ)
        if name.startswith(prefix) and name not in known
    }


def recipe_from(plan: Mapping[str, Any], environ: Mapping[str, str]) -> Recipe:
    """The recipe of a plan's configuration, overridden by the environment.

    Args:
        plan: the configuration's "dinomed3d_recipe" entry, or nothing.
        environ: the process's environment.

    Raises:
        UserError: an unknown field, or a value of the wrong type or range.
    """
    unknown = plan.keys() - {f.name for f in fields(Recipe)}
    if unknown:
        raise UserError(
            f"plan: unknown recipe fields {', '.join(sorted(unknown))}; the plan was written by another "
            "version of dinomed3d: install that version, or plan again"
        )
    for name, value in plan.items():
        default = getattr(Recipe(), name)
        kinds = (int, float) if type(default) is float else (type(default),)
        if type(value) not in kinds:
            raise UserError(
                f"plan: recipe field {name!r} must be of type {type(default).__name__}, got {value!r}; "
                "correct the plan or plan again"
            )
    planned = Recipe(**plan)
    recipe: Recipe = _overridden(planned, RECIPE_VARIABLES, environ)
    if recipe.stage1_slices > planned.stage1_slices:
        # the bound on tokens was planned for fewer slices than are wanted now, so it grows with them
        share = planned.stage1_tokens / planned.stage1_slices
        recipe = replace(recipe, stage1_tokens=math.ceil(share * recipe.stage1_slices))
    # a checkpoint's recipe is read here too: it states its weights, and what follows from them
    return recipe if "weights" in plan else _for_start(recipe, environ)


def resumed_recipe(stored: Mapping[str, Any], environ: Mapping[str, str]) -> Recipe:
    """The recipe of a checkpoint: the environment may change lengths and rates, not what it started from.

    Args:
        stored: its fields.
        environ: the process's environment.

    Raises:
        UserError: as `recipe_from`.
    """
    return recipe_from(stored, {k: v for k, v in environ.items() if k not in ORIGIN})


def _for_start(recipe: Recipe, environ: Mapping[str, str]) -> Recipe:
    """What follows from the start of a new training, unless a variable says otherwise."""

    def given(variable: str) -> bool:
        return bool(environ.get(variable, "").strip())

    if recipe.start_from != "none":
        # stage I would tune a trained encoder below adapters that know it as it is
        return recipe if given("DINOMED3D_STAGE1_EPOCHS") else replace(recipe, stage1_epochs=0)
    if recipe.weights == "none" and not given("DINOMED3D_RATE_ENCODER"):
        return replace(recipe, rate_encoder=10 * recipe.rate_encoder)
    return recipe


def recipe_changes(stored: Recipe, used: Recipe) -> str:
    """The fields in which a recipe differs from a stored one, and the variables that set them.

    Args:
        stored: of a checkpoint.
        used: after the environment.

    Returns:
        Such as "clip 2.0 instead of 1.0", separated by commas; empty if they are the same.
    """
    variables = {field: f" ({variable})" for variable, field in RECIPE_VARIABLES.items()}
    return ", ".join(
        f"{f.name} {getattr(used, f.name)} instead of {getattr(stored, f.name)}{variables.get(f.name, '')}"
        for f in fields(Recipe)
        if getattr(used, f.name) != getattr(stored, f.name)
    )


def spec_from(spec: NetworkSpec, environ: Mapping[str, str]) -> NetworkSpec:
    """A network with the fields that the environment overrides.

    Raises:
        UserError: a value of the wrong type, or one that makes no network.
    """
    changed: NetworkSpec = _overridden(spec, SPEC_VARIABLES, environ)
    return changed


def _overridden(base: Any, variables: Mapping[str, str], environ: Mapping[str, str]) -> Any:
    for name, meant in unknown_variables(environ).items():
        if meant:  # others may be of a user's own scripts
            raise UserError(
                f"environment variable {name}: nothing reads it{meant} Unset it otherwise"
            )
    return replace(
        base,
        **{
            field: _parse(variable, environ[variable], getattr(base, field))
            for variable, field in variables.items()
            if environ.get(variable, "").strip()
        },
    )


def _parse(variable: str, text: str, default: Any) -> Any:
    """A variable's value in the type of the field's default."""
    try:
        if isinstance(default, bool | str):
            return text
        if isinstance(default, int | float):
            return type(default)(text)
        if isinstance(default, tuple):
            return tuple(word.strip() for word in text.split(",") if word.strip())
        value = json.loads(text)
        if not isinstance(value, dict):
            raise ValueError("not an object")
        return value
    except ValueError as error:
        kind = {int: "a whole number", float: "a number"}.get(type(default), "a JSON object")
        raise UserError(f"environment variable {variable} must be {kind}, got {text!r}") from error
