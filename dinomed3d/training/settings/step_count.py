"""How many optimizer steps a training has, said before its first one."""

from __future__ import annotations

from collections.abc import Iterator

from dinomed3d.runtime.messages.few_steps import few_steps_warning
from dinomed3d.training.settings.recipe import Recipe


def step_count_lines(recipe: Recipe) -> Iterator[str]:
    """The steps of each stage as a line, and a line for each stage that has few.

    Args:
        recipe: with its stages' epochs and the steps of an epoch.
    """
    each = recipe.iterations_per_epoch
    stages = {
        "I": ("DINOMED3D_STAGE1_EPOCHS", recipe.stage1_epochs),
        "II": ("DINOMED3D_STAGE2_EPOCHS", recipe.stage2_epochs),
    }
    counts = [
        f"{epochs * each:,} in stage {stage} ({epochs} epochs of {each})" if epochs
        else f"none in stage {stage}, which is left out"
        for stage, (_, epochs) in stages.items()
    ]  # fmt: skip
    yield f"Optimizer steps: {', '.join(counts)}"
    for stage, (setting, epochs) in stages.items():
        advice = f"raise {setting} (now {epochs}) or DINOMED3D_ITERATIONS_PER_EPOCH (now {each})"
        warning = few_steps_warning(f"stage {stage}", epochs * each, advice)
        if epochs and warning is not None:
            yield f"WARNING: {warning}"
