"""Recipes from JSON, and changes such as ``optimizer.lr=0.001``; unknown keys and wrong types are refused."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any, TypeVar

from dinomed3d.runtime.messages.suggestion import suggestion
from pointseg.config.recipe import Recipe
from pointseg.config.validation import RecipeError

FORMER_KEYS: Mapping[str, str] = {
    "setting": "scene_type",
    "test.views": "test.tta",
    "form": "cloud_format",
    "cloud_format.strength_max": "cloud_format.intensity_max",
    "images.near_m": "images.visibility.near_m",
    "images.far_m": "images.visibility.far_m",
    "images.margin_m": "images.visibility.depth_tolerance_m",
    "images.occlusion": "images.visibility.occlusion",
    "images.allow_unseen": "images.allow_missing_images",
}
"""Keys in older checkpoints and where their values are now."""
T = TypeVar("T")


def read_recipe(text: str) -> Recipe:
    """A recipe from JSON as :meth:`Recipe.to_json` writes it, also of older checkpoints.

    Raises:
        RecipeError: not JSON, an unknown key, or a value that is not allowed.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"recipe: must be JSON, as --show-recipe prints it: {error}") from error
    if isinstance(found, dict):
        _move_former_keys(found)
    return _parse(Recipe, found, "recipe")


def override(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """A recipe with ``key=value`` changes; dots reach inside: ``optimizer.lr=0.001``.

    Values are JSON; what is not JSON is taken as text. Below ``backbone_config`` any key may be set.

    Raises:
        RecipeError: no ``=``, an unknown key (the message lists the known ones), a value that is not allowed.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"--override {change}: must be key=value")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        try:
            recipe = _changed(recipe, key.split("."), value, f"--override {change}")
        except _UnknownKeyError as error:
            raise RecipeError(f"{error}{_meant(recipe, key)}") from error
    return recipe


class _UnknownKeyError(RecipeError):
    """A key that a dataclass does not have."""


def _meant(recipe: Recipe, key: str) -> str:
    """The key that was probably meant: one of the same last word, or one spelled almost like it."""
    keys = _keys_inside(recipe)
    same = [known for known in keys if known.split(".")[-1] == key.split(".")[-1]]
    return f"; did you mean {' or '.join(same)}?" if same else suggestion([key], keys)


def _keys_inside(owner: Any) -> list[str]:
    """The keys of a dataclass and, after a dot, of those inside it."""
    found = []
    for field in fields(owner):
        found.append(field.name)
        if is_dataclass(value := getattr(owner, field.name)):
            found += [f"{field.name}.{inner}" for inner in _keys_inside(value)]
    return found


def _move_former_keys(found: dict[str, Any]) -> None:
    """Move the values of an older checkpoint to the keys of today."""
    for former, current in FORMER_KEYS.items():
        *sections, key = former.split(".")
        section: Any = found
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or key not in section:
            continue
        value, target = section.pop(key), found
        *sections, key = current.split(".")
        for name in sections:
            target = target.setdefault(name, {})
        target[key] = value
    if found.get("form") == {}:
        del found["form"]
    files = found.get("cloud_format")
    if isinstance(files, dict) and "color_max" not in files and files.get("unit_m") == 1:
        files["unit_m"] = (
            None  # metres were what nobody stated, and files that say their unit were not asked
        )


def _changed(owner: T, path: Sequence[str], value: Any, who: str) -> T:
    """``owner`` (a dataclass) with one value replaced."""
    types_of = typing.get_type_hints(type(owner))
    name, rest = path[0], path[1:]
    if name not in types_of:
        raise _UnknownKeyError(f"{who}: '{name}' is none of {', '.join(types_of)}")
    current = getattr(owner, name)
    if not rest:
        new = _value(types_of[name], value, f"{who}: '{name}'")
    elif is_dataclass(current):
        new = _changed(current, rest, value, who)
    elif isinstance(current, Mapping) and len(rest) == 1:
        new = {**current, rest[0]: value}
    else:
        raise RecipeError(f"{who}: '{name}' has nothing inside it")
    return _built(lambda: replace(owner, **{name: new}), who)  # type: ignore[type-var]


def _parse(kind: type[T], found: Any, who: str) -> T:
    """A dataclass from parsed JSON; keys that an older version did not know have their default."""
    if not isinstance(found, dict):
        raise RecipeError(f"{who}: must be an object, got {found!r:.60}")
    types_of = typing.get_type_hints(kind)
    if unknown := [key for key in found if key not in types_of]:
        raise RecipeError(f"{who}: unknown keys {', '.join(unknown)}; known: {', '.join(types_of)}")
    values = {key: _value(types_of[key], value, f"{who}: '{key}'") for key, value in found.items()}
    missing = [
        f.name
        for f in fields(kind)  # type: ignore[arg-type]
        if f.name not in found and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise RecipeError(f"{who}: lacks {', '.join(missing)}")
    return _built(lambda: kind(**values), who)


def _built(build: typing.Callable[[], T], who: str) -> T:
    """What ``build`` returns; errors of constructors become errors of the recipe."""
    try:
        return build()
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{who}: {error}") from error


def _value(kind: Any, value: Any, who: str) -> Any:
    """``value`` (from JSON) as the annotated type."""
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if is_dataclass(kind):
        return _parse(typing.cast(type, kind), value, who)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inside:
            return None
        (kind,) = [k for k in inside if k is not type(None)]
        return _value(kind, value, who)
    if origin is tuple:
        return _tuple(inside, value, who)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise RecipeError(f"{who}: must be an object, got {value!r}")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not kind:
        what = "text" if kind is str else kind.__name__
        raise RecipeError(f"{who}: must be {what}, got {value!r}")
    return value


def _tuple(inside: tuple[Any, ...], value: Any, who: str) -> tuple[Any, ...]:
    """A list, or comma-separated text, as a tuple of the annotated types."""
    if isinstance(value, str) and inside[0] is str:
        value = value.split(",")
    if not isinstance(value, list | tuple):
        raise RecipeError(f"{who}: must be a list, got {value!r}")
    kinds = [inside[0]] * len(value) if inside[-1] is Ellipsis else list(inside)
    if len(kinds) != len(value):
        raise RecipeError(f"{who}: must hold {len(kinds)} values, got {value!r}")
    return tuple(_value(k, v, who) for k, v in zip(kinds, value, strict=True))
