"""The error of a recipe, and the check that raises it."""

from __future__ import annotations

from typing import Any

from dinomed3d.runtime.errors import UserError


class RecipeError(UserError):
    """A value in a recipe that is not allowed, or a change to a recipe that does not fit."""


def require(who: str, name: str, value: Any, is_valid: bool, what: str) -> None:
    """Refuse a value.

    Args:
        who: the configuration that holds the value.
        name: the field.
        value: what the field holds.
        is_valid: whether the value is allowed.
        what: what the value must be, for the message.

    Raises:
        RecipeError: ``is_valid`` is False.
    """
    if not is_valid:
        raise RecipeError(f"{who}: '{name}' must be {what}, got {value!r}")
