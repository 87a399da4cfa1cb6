"""Trainings that are too short to learn much say so before they begin, not after hours of hope."""

from __future__ import annotations

FEW_STEPS = 1000
"""Below about so many optimizer steps networks are hardly better than at their start."""


def few_steps_warning(what: str, steps: int, advice: str) -> str | None:
    """What to say of a short training, None of others.

    Args:
        what: the training, such as `stage II`.
        steps: optimizer steps that it has.
        advice: which setting makes it longer.

    Examples:
        `few_steps_warning("stage II", 500, "raise X")` -> `"stage II has only 500 optimizer steps, ..."`
    """
    if steps >= FEW_STEPS:
        return None
    return (
        f"{what} has only {steps:,} optimizer steps, and below about {FEW_STEPS:,} networks learn little; this is "
        f"fine for a trial, otherwise {advice}"
    )
