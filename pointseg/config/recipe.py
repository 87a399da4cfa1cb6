"""How a model is trained and tested, as data: written beside every checkpoint, changed by ``key=value``."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from math import inf
from typing import Any, TypeVar

from dinomed3d.runtime.errors import UserError
from pointseg.config.optimizer import OptimizerSpec
from pointseg.datasets.conventions import UP_AXES
from pointseg.images.config import ImageConfig
from pointseg.transforms.augmentation import Augmentation
from pointseg.transforms.test_time_augmentation import TTA_SETS

FEATURES = {"color": 3, "normal": 3, "strength": 1, "coord": 3}
"""What can be fed to a network, and how many channels it takes."""


class RecipeError(UserError):
    """A recipe that cannot be, or a change to it that does not fit."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a trained model is tested (section 2.13 of the method's description)."""

    views: str = "single"
    """Named set of test-time views: single, scannet, s3dis, nuscenes, semantickitti."""
    prevoxel_m: float | None = None
    """Points are thinned to this grid before everything else, and predictions mapped back."""
    max_points: int = 400_000
    """Voxels that go through the network at once; larger clouds are cut into overlapping tiles."""
    margin_m: float = 2.0
    """How far tiles overlap."""

    def __post_init__(self) -> None:
        _require(
            "Protocol", "views", self.views, self.views in TTA_SETS, f"one of {', '.join(TTA_SETS)}"
        )
        _require("Protocol", "max_points", self.max_points, self.max_points >= 1, ">= 1")
        _require("Protocol", "margin_m", self.margin_m, self.margin_m >= 0, ">= 0 metres")
        thin = self.prevoxel_m
        _require("Protocol", "prevoxel_m", thin, thin is None or thin > 0, "> 0 metres, or null")


@dataclass(frozen=True, kw_only=True)
class Form:
    """How the clouds lay in their files: what prediction takes for granted of others."""

    unit_m: float = 1.0
    """Metres per unit of the coordinates."""
    up: str = "z"
    """The vertical axis: z, y or -y."""
    strength_max: float | None = None
    """The intensity that becomes 1; None: what the type of a file says, else a guess for each file."""
    columns: tuple[str, ...] | None = None
    """Names of the columns of text that has no line of names."""

    def __post_init__(self) -> None:
        _require("Form", "unit_m", self.unit_m, self.unit_m > 0, "> 0 metres")
        _require("Form", "up", self.up, self.up in UP_AXES, f"one of {', '.join(UP_AXES)}")
        most = self.strength_max
        _require("Form", "strength_max", most, most is None or 0 < most < inf, "> 0, or null")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides what a training run learns, given its data."""

    dataset: str
    backbone: str = "ptv3"
    backbone_config: Mapping[str, Any] = field(default_factory=dict)
    """Constructor arguments that differ from the backbone's full size; in_channels follows features."""
    features: tuple[str, ...] = ("color", "normal")
    """Input channels, in this order; every scene must have them."""
    color_range: str = "unit"
    """unit: colours in 0 to 1 (Pointcept now); signed: -1 to 1 (DITR). Weights do not carry over."""
    setting: str = "indoor"
    """indoor: rooms are centred and sphere crops taken; outdoor: coordinates stay where the sensor is."""
    voxel_m: float = 0.02
    max_points: int | None = 102_400
    """Voxels of one training sample, at most: a sphere crop. None: no crop."""
    sphere_fraction: float = 1.0
    """Share of a sample's voxels that its sphere crop keeps, at most."""
    clip_box_m: tuple[float, ...] | None = None
    """x, y, z minima and maxima outdoors; points outside are moved onto the box (as the references do)."""
    drop_outside: bool = False
    """Points outside the box are left out of training and validation instead, and tested where they are."""
    epochs: int = 800
    """Passes over the training scenes."""
    evaluations: int = 100
    """Rounds of validation, spread evenly over the run."""
    batch_size: int = 12
    """Scenes per step, over all devices and accumulated parts together."""
    train_splits: tuple[str, ...] = ("train",)
    val_splits: tuple[str, ...] = ("val",)
    test_splits: tuple[str, ...] = ("val",)
    mix3d: float = 0.8
    """Probability per batch that pairs of samples are merged."""
    class_weights: str = "none"
    """none, auto (-ln of the class's share), sqrt (inverse square root of it)."""
    lovasz: float = 1.0
    """Weight of the Lovasz-softmax loss; cross-entropy has weight 1."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    optimizer: OptimizerSpec = field(default_factory=OptimizerSpec)
    images: ImageConfig | None = None
    """How images take part; None: they do not."""
    test: Protocol = field(default_factory=Protocol)
    form: Form = field(default_factory=Form)

    def __post_init__(self) -> None:
        who = f"Recipe {self.dataset}"
        unknown = [name for name in self.features if name not in FEATURES]
        _require(who, "features", self.features, bool(self.features) and not unknown,
                 f"some of {', '.join(FEATURES)}")  # fmt: skip
        _require(who, "color_range", self.color_range, self.color_range in ("unit", "signed"),
                 "unit or signed")  # fmt: skip
        _require(who, "setting", self.setting, self.setting in ("indoor", "outdoor"),
                 "indoor or outdoor")  # fmt: skip
        _require(who, "class_weights", self.class_weights,
                 self.class_weights in ("none", "auto", "sqrt"), "none, auto or sqrt")  # fmt: skip
        _require(who, "voxel_m", self.voxel_m, self.voxel_m > 0, "> 0 metres")
        for name in ("epochs", "evaluations", "batch_size"):
            _require(who, name, getattr(self, name), getattr(self, name) >= 1, ">= 1")
        _require(who, "mix3d", self.mix3d, 0 <= self.mix3d <= 1, "a probability")
        _require(who, "lovasz", self.lovasz, self.lovasz >= 0, ">= 0")
        _require(who, "sphere_fraction", self.sphere_fraction, 0 < self.sphere_fraction <= 1,
                 "above 0, at most 1")  # fmt: skip
        _require(who, "max_points", self.max_points,
                 self.max_points is None or self.max_points >= 1, ">= 1, or null")  # fmt: skip
        box = self.clip_box_m
        _require(who, "clip_box_m", box, box is None or (len(box) == 6 and all(
            a < b for a, b in zip(box[:3], box[3:], strict=True))),
            "x, y, z minima, then maxima, or null")  # fmt: skip
        if "in_channels" in self.backbone_config:
            raise RecipeError(f"{who}: 'backbone_config' must not set in_channels: features do")

    @property
    def in_channels(self) -> int:
        """Channels that the features make."""
        return sum(FEATURES[name] for name in self.features)

    @property
    def needs(self) -> tuple[str, ...]:
        """Scene fields that the features are made from."""
        return tuple(name for name in self.features if name != "coord")

    def to_json(self) -> str:
        """As text that :func:`read_recipe` reads back."""
        return json.dumps(asdict(self), indent=1)


def read_recipe(text: str) -> Recipe:
    """From JSON as :meth:`Recipe.to_json` writes it; unknown keys are refused.

    Raises:
        RecipeError: not JSON, an unknown key, or a value that does not fit.
    """
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise RecipeError(f"read_recipe: not JSON: {error}") from error
    return _parse(Recipe, _with_visibility(found), "recipe")


def _with_visibility(found: Any) -> Any:
    """A recipe of checkpoints written before ``images.visibility``, with the keys that are in it now."""
    images = found.get("images") if isinstance(found, dict) else None
    if not isinstance(images, dict) or "visibility" in images:
        return found
    moved = {name: name for name in ("near_m", "far_m", "occlusion")}
    moved["margin_m"] = "depth_tolerance_m"
    visibility = {moved[key]: value for key, value in images.items() if key in moved}
    kept = {key: value for key, value in images.items() if key not in moved}
    return {**found, "images": {**kept, "visibility": visibility}}


def override(recipe: Recipe, changes: Sequence[str]) -> Recipe:
    """A recipe with ``key=value`` changes; dots reach inside: ``optimizer.lr=0.001``.

    Values are JSON; what is not JSON is taken as text. Below ``backbone_config`` any key may be set.

    Raises:
        RecipeError: no ``=``, an unknown key (the message lists the known ones), a value that does not fit.
    """
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise RecipeError(f"--override {change}: must be key=value")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        recipe = _changed(recipe, key.split("."), value, f"--override {change}")
    return recipe


T = TypeVar("T")


def _changed(owner: T, path: Sequence[str], value: Any, who: str) -> T:
    """``owner`` (a dataclass) with one value replaced."""
    types_of = typing.get_type_hints(type(owner))
    name, rest = path[0], path[1:]
    if name not in types_of:
        raise RecipeError(f"{who}: '{name}' is none of {', '.join(types_of)}")
    current = getattr(owner, name)
    if not rest:
        new = _value(types_of[name], value, f"{who}: '{name}'")
    elif is_dataclass(current):
        new = _changed(current, rest, value, who)
    elif isinstance(current, Mapping) and len(rest) == 1:
        new = {**current, rest[0]: value}
    else:
        raise RecipeError(f"{who}: '{name}' has nothing inside it")
    try:
        return replace(owner, **{name: new})  # type: ignore[type-var]
    except RecipeError:
        raise
    except ValueError as error:
        raise RecipeError(f"{who}: {error}") from error


def _parse(kind: type[T], found: Any, who: str) -> T:
    """A dataclass from parsed JSON."""
    if not isinstance(found, dict):
        raise RecipeError(f"{who}: must be an object, got {found!r:.60}")
    types_of = typing.get_type_hints(kind)
    if unknown := [key for key in found if key not in types_of]:
        raise RecipeError(f"{who}: unknown keys {', '.join(unknown)}; known: {', '.join(types_of)}")
    values = {key: _value(types_of[key], value, f"{who}: '{key}'") for key, value in found.items()}
    # what a recipe that was written before a key was known lacks has its default
    missing = [
        f.name
        for f in fields(kind)  # type: ignore[arg-type]
        if f.name not in found and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise RecipeError(f"{who}: lacks {', '.join(missing)}")
    try:
        return kind(**values)
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
        if isinstance(value, str) and inside[0] is str:
            value = value.split(",")
        if not isinstance(value, list | tuple):
            raise RecipeError(f"{who}: must be a list, got {value!r}")
        kinds = [inside[0]] * len(value) if inside[-1] is Ellipsis else list(inside)
        if len(kinds) != len(value):
            raise RecipeError(f"{who}: must hold {len(kinds)} values, got {value!r}")
        return tuple(_value(k, v, who) for k, v in zip(kinds, value, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, dict):
            raise RecipeError(f"{who}: must be an object, got {value!r}")
        return dict(value)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind is str and not isinstance(value, str):
        raise RecipeError(f"{who}: must be text, got {value!r}")
    if type(value) is not kind:
        raise RecipeError(f"{who}: must be {kind.__name__}, got {value!r}")
    return value


def _require(who: str, name: str, value: Any, holds: bool, what: str) -> None:
    if not holds:
        raise RecipeError(f"{who}: '{name}' must be {what}, got {value!r}")
