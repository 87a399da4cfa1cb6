"""What the JSON files of a model must contain, and which code they may name, before any of it is used.

`plans` is the content of plans.json, `dataset` of dataset.json, `name` a configuration of the plans, and
`what` names the file in messages.
"""

from __future__ import annotations

import importlib
import json
import math
import pkgutil
import pydoc
from collections.abc import Callable, Mapping
from typing import Any

from dinomed3d.runtime.errors import UserError

PACKAGES = ("torch.nn", "dynamic_network_architectures", "dinomed3d.networks")
"""Plans may name classes of these packages for their network; nothing else is imported."""
NETWORKS = ("dynamic_network_architectures.architectures", "dinomed3d.networks")
"""Where the networks among them are; the others hold layers."""
BUILDERS = ("dinomed3d.networks.network.build_network",)
"""Functions that plans may name."""
OLD_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
"""Networks of plans of early nnU-Net v2, named without a path."""
STOCK = "predict with nnUNetv2_predict, where that code is installed, if you trust the model"

Rule = tuple[str, Callable[[Any], bool]]
"""What a value must be, and how that is checked."""


def is_plain_name(value: object) -> bool:
    """Whether a value names a class or function without a path."""
    return isinstance(value, str) and value.isascii() and value.isidentifier()


def _list_of(value: object, length: int, is_item: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(is_item, value))


def _is_positive(value: object) -> bool:
    return type(value) in (int, float) and 0 < value < math.inf  # type: ignore[operator]


def _is_finite(value: object) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf  # type: ignore[arg-type]


NAME: Rule = ("the plain name of a class or function", is_plain_name)
TEXT: Rule = ("a text", lambda value: isinstance(value, str))
OBJECT: Rule = ("an object", lambda value: isinstance(value, dict))


CT_PROPERTIES = ("percentile_00_5", "percentile_99_5", "mean", "std")
"""What CTNormalization needs to know of a channel."""
_ORDER: Rule = ("a whole number of 0 to 5", lambda v: type(v) is int and 0 <= v <= 5)
RESAMPLING: dict[str, Rule] = {
    "order": _ORDER,
    "order_z": _ORDER,
    "force_separate_z": ("true, false or null", lambda v: v is None or isinstance(v, bool)),
    "separate_z_anisotropy_threshold": ("a positive number", lambda v: _is_positive(v)),
}
"""Options of nnU-Net's resampling, where they are there."""


def require(content: Mapping[str, Any], what: str, rules: Mapping[str, Rule]) -> None:
    """Check entries of a JSON object, one after the other.

    Raises:
        UserError: a value is missing or not valid.
    """
    for key, (must, is_valid) in rules.items():
        if not is_valid(content.get(key)):
            raise UserError(
                f"{what}: {key!r} must be {must}, got {_short(content.get(key))}; use the file that nnU-Net wrote"
            )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def parse(content: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        UserError: not JSON, or not an object.
    """
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{what}: not JSON ({str(error) or 'nested too deep'}); copy it again"
        ) from error
    if not isinstance(value, dict):
        raise UserError(f"{what}: must be a JSON object, got {_short(value)}; copy it again")
    return value


def configuration_of(plans: Mapping[str, Any], name: str, what: str) -> dict[str, Any]:
    """A configuration of plans, with what it inherits.

    Raises:
        UserError: it does not exist, or inherits from itself.
    """
    require(plans, what, {"configurations": OBJECT})
    configurations = plans["configurations"]
    merged: dict[str, Any] = {}
    visited: list[str] = []
    wanted: Any = name
    while wanted is not None:
        found = configurations.get(wanted) if isinstance(wanted, str) else None
        if not isinstance(found, dict) or wanted in visited:
            raise UserError(
                f"{what}: configuration {_short(wanted)} is not in the plans or inherits from itself; they have "
                f"{', '.join(configurations) or 'none'}"
            )
        visited.append(wanted)
        merged = {**found, **merged}
        wanted = found.get("inherits_from")
    return merged


def check_plans(plans: Mapping[str, Any], name: str, channels: int, what: str) -> None:
    """Check all entries of plans that prediction needs.

    Raises:
        UserError: an entry is missing or not valid.
    """
    properties = "foreground_intensity_properties_per_channel"
    early = {properties: plans.get("foreground_intensity_properties_by_modality")}
    rules = {
        "dataset_name": TEXT,
        "plans_name": TEXT,
        "image_reader_writer": NAME,
        "label_manager": NAME,
        "transpose_forward": (
            "the axes 0, 1, 2 in some order",
            lambda v: _list_of(v, 3, lambda a: type(a) is int) and sorted(v) == [0, 1, 2],
        ),
        properties: OBJECT,
    }
    require({"label_manager": "LabelManager", **early, **plans}, what, rules)
    configuration = configuration_of(plans, name, what)
    what = f"{what}, configuration {name}"
    if (previous := configuration.get("previous_stage")) is not None:
        stages: Rule = (
            "another configuration of the plans",
            lambda v: isinstance(v, str) and v in plans["configurations"] and v != name,
        )
        require({"previous_stage": previous}, what, {"previous_stage": stages})
        segmentation = {"resampling_fn_seg": NAME, "resampling_fn_seg_kwargs": OBJECT}
        require(configuration, what, segmentation)
    patch = configuration.get("patch_size")
    axes = len(patch) if isinstance(patch, list) else 0
    functions = ("preprocessor_name", "resampling_fn_data", "resampling_fn_probabilities")
    arguments = ("resampling_fn_data_kwargs", "resampling_fn_probabilities_kwargs")
    rules = {
        **dict.fromkeys(functions, NAME),
        **dict.fromkeys(arguments, OBJECT),
        "patch_size": (
            "2 or 3 positive whole numbers",
            lambda v: axes in (2, 3) and _list_of(v, axes, lambda n: type(n) is int and n > 0),
        ),
        "spacing": (f"{axes} positive numbers", lambda v: _list_of(v, axes, _is_positive)),
        "normalization_schemes": (
            f"{channels} plain names, one for each channel",
            lambda v: _list_of(v, channels, is_plain_name),
        ),
        "use_mask_for_norm": (
            f"a list of {channels}, one for each channel",
            lambda v: _list_of(v, channels, lambda _: True),
        ),
    }
    require(configuration, what, rules)
    intensities = {**early, **plans}[properties]
    for number, scheme in enumerate(configuration["normalization_schemes"]):
        if scheme == "CTNormalization":
            channel: Rule = (
                f"numbers for {', '.join(CT_PROPERTIES)}",
                lambda v: isinstance(v, dict) and all(_is_finite(v.get(k)) for k in CT_PROPERTIES),
            )
            require(intensities, f"{what}, {properties}", {str(number): channel})
    for key in arguments:
        given = configuration[key]
        known = {option: RESAMPLING[option] for option in RESAMPLING if option in given}
        require(given, f"{what}, {key}", known)


def previous_stage_of(plans: bytes, name: str) -> str | None:
    """The configuration whose labels a configuration reads (cascade); None if there is none.

    Args:
        plans: content of plans.json.
        name: of the configuration.
    """
    try:
        found = configuration_of(parse(plans, "plans.json"), name, "plans.json")
    except UserError:
        return None
    previous = found.get("previous_stage")
    return previous if isinstance(previous, str) else None


def channel_names(dataset: Mapping[str, Any]) -> Any:
    """Channel number as text -> name; early data sets call the entry modality."""
    return dataset.get("modality", dataset.get("channel_names"))


def label_values(value: Any) -> list[int]:
    """The values of a label or region as a list."""
    return [int(v) for v in (value if isinstance(value, list) else [value])]


def _is_label(value: object) -> bool:
    """Whether a value is that of a label; some data sets write it as text."""
    return (type(value) is int and value >= 0) or (isinstance(value, str) and value.isdecimal())


def _are_labels(labels: object) -> bool:
    return isinstance(labels, dict) and all(
        _is_label(value)
        or (
            name not in ("background", "ignore")
            and isinstance(value, list)
            and value != []
            and all(map(_is_label, value))
        )
        for name, value in labels.items()
    )


def check_dataset(dataset: Mapping[str, Any], what: str) -> None:
    """Check channels, labels and file ending of a dataset.json.

    Raises:
        UserError: they are missing or do not fit together.
    """
    labels = dataset.get("labels")
    if isinstance(labels, dict) and "background" not in labels and "background" in labels.values():
        raise UserError(
            f"{what}: 'labels' goes from numbers to names, as in nnU-Net v1; v2 needs it from names to numbers"
        )
    rules: dict[str, Rule] = {
        "channel_names": (
            'an object from "0", "1", ... to names',
            lambda v: (
                isinstance(v, dict)
                and bool(v)
                and set(v) == {str(i) for i in range(len(v))}
                and all(isinstance(name, str) for name in v.values())
            ),
        ),
        "file_ending": (
            'a file ending such as ".nii.gz"',
            lambda v: isinstance(v, str) and v.startswith(".") and len(v) <= 20,
        ),
        "labels": ("an object from names to whole numbers", _are_labels),
    }
    require({**dataset, "channel_names": channel_names(dataset)}, what, rules)
    assert isinstance(labels, dict)
    values = {name: label_values(value) for name, value in labels.items()}
    every = sorted({v for own in values.values() for v in own})
    numbered: Rule = (
        "numbered 0 (background), 1, 2, ... to at most 65535 without a gap, 'ignore' the highest",
        lambda _: (
            values.get("background") == [0]
            and every == list(range(len(every)))
            and every[-1] <= 65535
            and values.get("ignore", every[-1:]) == every[-1:]
        ),
    )
    require(dataset, what, {"labels": numbered})
    if any(len(own) > 1 for own in values.values()):
        names = [name for name, own in values.items() if name != "ignore" and set(own) != {0}]
        order: Rule = (
            f"a list of {len(names)} labels, one for each of {', '.join(names)}",
            lambda v: _list_of(v, len(names), lambda n: _is_label(n) and 0 < int(n) <= 65535),
        )
        require(dataset, what, {"regions_class_order": order})


def check_architecture(plans: Mapping[str, Any], name: str, what: str = "plans.json") -> None:
    """Check that plans name nothing but networks and their layers as code.

    What is allowed is imported, but not called.

    Raises:
        UserError: they name other code, or something that does not exist.
    """
    configuration = configuration_of(plans, name, what)
    if "architecture" not in configuration:
        networks = f"a network of {', '.join(OLD_NETWORKS)}, as there is no 'architecture'"
        old: Rule = (networks, lambda v: v in OLD_NETWORKS)
        return require(configuration, what, {"UNet_class_name": old})
    require(configuration, what, {"architecture": OBJECT})
    architecture = configuration["architecture"]
    require(architecture, what, {"arch_kwargs": OBJECT})
    arguments = architecture["arch_kwargs"]
    imports: Rule = (
        "a list of names in 'arch_kwargs'",
        lambda v: isinstance(v, list) and all(isinstance(k, str) and k in arguments for k in v),
    )
    require(architecture, what, {"_kw_requires_import": imports})
    _check_path(architecture.get("network_class_name"), what, network=True)
    for key in architecture["_kw_requires_import"]:
        if arguments[key] is not None:
            _check_path(arguments[key], what, network=False)
    # they are arguments of timm, which can be made to read files
    numbers: Rule = (
        "an object of numbers",
        lambda v: (
            not isinstance(v, dict)
            or all(
                item is None or isinstance(item, bool | int | float)
                for value in v.values()
                for item in (value if isinstance(value, list) else [value])
            )
        ),
    )
    require(arguments, what, {"encoder_overrides": numbers})


def _check_path(path: object, what: str, *, network: bool) -> None:
    """Check the dotted path of a network, or of a part of one."""
    refusal = UserError(
        f"{what}: names the code {_short(path)}; a model may name networks of {', '.join(PACKAGES)} only, and "
        f"nothing else is run. If it is its own network, {STOCK}"
    )
    if not isinstance(path, str) or not path.isascii():
        raise refusal
    if not all(part.isidentifier() for part in path.split(".")) or not _is_inside(path):
        raise refusal
    if network and path in BUILDERS:
        return
    try:
        found: Any = pydoc.locate(path)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"{what}: {path} cannot be imported ({error.value})") from error
    if found is None and network and path.startswith("dynamic_network_architectures."):
        found = _moved_network(path)
    if found is None:
        raise UserError(
            f"{what}: {path} does not exist in this installation; the model needs another version of it"
        )
    # a path may lead out of the package again, as torch.nn.functional.warnings does
    from torch import nn

    is_module = isinstance(found, type) and issubclass(found, nn.Module)
    if not (is_module and _is_inside(found.__module__)):
        raise refusal
    if network and not found.__module__.startswith(NETWORKS):
        raise UserError(
            f"{what}: {path} is a layer, not a network; use the file that nnU-Net wrote"
        )


def _moved_network(path: str) -> Any:
    """What nnU-Net finds for the last part of a path that does not exist (a class that has moved)."""
    from dynamic_network_architectures import architectures

    name = path.split(".")[-1]
    for module in pkgutil.walk_packages(architectures.__path__, f"{architectures.__name__}."):
        found = getattr(importlib.import_module(module.name), name, None)
        if found is not None:
            return found
    return None


def _is_inside(path: str) -> bool:
    return any(path.startswith(f"{package}.") or path == package for package in PACKAGES)
