"""What a model from elsewhere must have, and which code it may name, before any of it is used."""

from __future__ import annotations

import json
import math
import pydoc
from collections.abc import Mapping
from typing import Any

from dinomed3d.runtime.errors import UserError

PACKAGES = ("torch.nn", "dynamic_network_architectures", "dinomed3d.networks")
"""Whose classes a plan may name for its network; anything else it names is not imported."""
BUILDERS = ("dinomed3d.networks.network.build_network",)
"""Functions that it may name."""
OLD_NETWORKS = ("PlainConvUNet", "ResidualEncoderUNet")
"""What plans of early nnU-Net v2 name, without a path; nnU-Net knows where they are."""
STOCK = "predict with nnUNetv2_predict, where that code is installed, if you trust the model"
NAMES = ("image_reader_writer", "label_manager")
CONFIGURATION_NAMES = ("preprocessor_name", "resampling_fn_data", "resampling_fn_probabilities")


def parse(content: bytes, what: str) -> dict[str, Any]:
    """A JSON object.

    Args:
        content: of a file.
        what: it is, for the message.

    Raises:
        UserError: not JSON, or no object.
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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _numbers(value: object, lengths: tuple[int, ...], *, whole: bool) -> bool:
    kinds = (int,) if whole else (int, float)
    return (
        isinstance(value, list)
        and len(value) in lengths
        and all(type(v) in kinds and 0 < v < math.inf for v in value)
    )


def configuration_of(plans: Mapping[str, Any], name: str, what: str) -> dict[str, Any]:
    """A configuration of a plan with what it inherits.

    Args:
        plans: as in plans.json.
        name: of the configuration.
        what: the plan is, for messages.

    Raises:
        UserError: there is none of that name, or it inherits from itself.
    """
    configurations = plans.get("configurations")
    if not isinstance(configurations, dict):
        raise UserError(f"{what}: 'configurations' must be an object; it is no plan of nnU-Net v2")
    merged: dict[str, Any] = {}
    visited: list[str] = []
    wanted: Any = name
    while wanted is not None:
        found = configurations.get(wanted) if isinstance(wanted, str) else None
        if not isinstance(found, dict) or wanted in visited:
            raise UserError(
                f"{what}: configuration {_short(wanted)} is not in the plan or inherits from itself; it has "
                f"{', '.join(configurations) or 'none'}"
            )
        visited.append(wanted)
        merged = {**found, **merged}
        wanted = found.get("inherits_from")
    return merged


def check_plans(plans: Mapping[str, Any], name: str, channels: int, what: str) -> None:
    """Refuse a plan that lacks what prediction needs.

    Args:
        plans: as in plans.json.
        name: of the configuration.
        channels: of the images.
        what: the plan is, for messages.

    Raises:
        UserError: a key is missing or holds what it cannot; a configuration of a cascade.
    """
    for key in ("dataset_name", "plans_name"):
        if not isinstance(plans.get(key), str):
            raise _wrong(what, key, "a name", plans.get(key))
    for key in NAMES:
        if key in plans or key == "image_reader_writer":
            check_name(plans.get(key), f"{what}: {key!r}")
    order = plans.get("transpose_forward")
    if not isinstance(order, list) or any(type(a) is not int for a in order):
        raise _wrong(what, "transpose_forward", "the order of the axes 0, 1, 2", order)
    if sorted(order) != [0, 1, 2]:
        raise _wrong(what, "transpose_forward", "the order of the axes 0, 1, 2", order)
    properties = plans.get(
        "foreground_intensity_properties_per_channel",
        plans.get("foreground_intensity_properties_by_modality"),
    )
    if not isinstance(properties, dict):
        raise _wrong(what, "foreground_intensity_properties_per_channel", "an object", properties)
    configuration = configuration_of(plans, name, what)
    what = f"{what}, configuration {name}"
    if configuration.get("previous_stage") is not None:
        raise UserError(
            f"{what}: is the second stage of a cascade and needs the segmentation of "
            f"{configuration['previous_stage']!r} as input, which is not supported here; predict with "
            "nnUNetv2_predict (-prev_stage_predictions), or use the model of another configuration"
        )
    for key in CONFIGURATION_NAMES:
        check_name(configuration.get(key), f"{what}: {key!r}")
    for key in ("resampling_fn_data_kwargs", "resampling_fn_probabilities_kwargs"):
        if not isinstance(configuration.get(key), dict):
            raise _wrong(what, key, "an object", configuration.get(key))
    patch, spacing = configuration.get("patch_size"), configuration.get("spacing")
    if not _numbers(patch, (2, 3), whole=True):
        raise _wrong(what, "patch_size", "2 or 3 positive whole numbers", patch)
    assert isinstance(patch, list)
    if not _numbers(spacing, (len(patch),), whole=False):
        raise _wrong(what, "spacing", f"{len(patch)} positive numbers, as 'patch_size'", spacing)
    for key in ("normalization_schemes", "use_mask_for_norm"):
        value = configuration.get(key)
        if not isinstance(value, list) or len(value) != channels:
            raise _wrong(what, key, f"a list of {channels}, one for each channel", value)
    for scheme in configuration["normalization_schemes"]:
        check_name(scheme, f"{what}: 'normalization_schemes'")


def _wrong(what: str, key: str, must: str, got: object) -> UserError:
    return UserError(
        f"{what}: {key!r} must be {must}, got {_short(got)}; take the file that nnU-Net wrote"
    )


def check_name(name: object, what: str) -> str:
    """The plain name of a class or function that nnU-Net looks up among its own.

    Args:
        name: as the model gives it.
        what: it names, for the message.

    Raises:
        UserError: it is none, or a path.
    """
    if not isinstance(name, str) or not name.isascii() or not name.isidentifier():
        raise UserError(
            f"{what} must be the plain name of a class or function, got {_short(name)}; take the file that "
            "nnU-Net wrote"
        )
    return name


def check_dataset(dataset: Mapping[str, Any], what: str) -> None:
    """Refuse a dataset.json without channels, labels or file ending that fit together.

    Args:
        dataset: as in dataset.json.
        what: it is, for messages.

    Raises:
        UserError: see there.
    """
    channels = channel_names(dataset)
    numbers = [str(i) for i in range(len(channels))] if isinstance(channels, dict) else []
    if not isinstance(channels, dict) or not channels or sorted(channels) != sorted(numbers):
        raise _wrong(what, "channel_names", 'an object from "0", "1", ... to names', channels)
    if not all(isinstance(name, str) for name in channels.values()):
        raise _wrong(what, "channel_names", "an object of names", channels)
    ending = dataset.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith(".") or len(ending) > 20:
        raise _wrong(what, "file_ending", 'a file ending such as ".nii.gz"', ending)
    labels = dataset.get("labels")
    if not isinstance(labels, dict):
        raise _wrong(what, "labels", "an object from names to numbers", labels)
    if "background" not in labels and "background" in labels.values():
        raise UserError(
            f"{what}: 'labels' goes from numbers to names, as in nnU-Net v1; v2 needs it from names to numbers"
        )
    regions = False
    values: set[int] = set()
    for name, value in labels.items():
        several = isinstance(value, list)
        items = value if isinstance(value, list) else [value]
        if not items or any(_whole(v) is None for v in items) or (name == "ignore" and several):
            raise _wrong(what, "labels", "an object from names to whole numbers", {name: value})
        regions = regions or len(items) > 1
        values |= {int(v) for v in items}
    if _whole(labels.get("background")) != 0 or sorted(values) != list(range(len(values))):
        raise _wrong(what, "labels", "numbered 0 (background), 1, 2, ... without a gap", labels)
    if "ignore" in labels and int(labels["ignore"]) != max(values):
        raise _wrong(what, "labels", "such that 'ignore' is the highest", labels)
    if max(values) > 65535:
        raise _wrong(what, "labels", "at most 65535", max(values))
    if regions:
        _check_regions(dataset, labels, what)


def channel_names(dataset: Mapping[str, Any]) -> Any:
    """From numbers as text to names; early data sets call them modality."""
    return dataset.get("modality", dataset.get("channel_names"))


def _check_regions(dataset: Mapping[str, Any], labels: Mapping[str, Any], what: str) -> None:
    order = dataset.get("regions_class_order")
    wanted = [n for n, v in labels.items() if n != "ignore" and set(_items(v)) != {0}]
    if not isinstance(order, list) or any(_whole(v) is None for v in order):
        raise _wrong(what, "regions_class_order", "a list of numbers, as there are regions", order)
    if len(order) != len(wanted) or any(not 0 < int(v) <= 65535 for v in order):
        must = f"a list of {len(wanted)} labels, one for each of {', '.join(wanted)}"
        raise _wrong(what, "regions_class_order", must, order)


def _items(value: Any) -> list[int]:
    return [int(v) for v in (value if isinstance(value, list) else [value])]


def _whole(value: object) -> int | None:
    """A number of a label, which some data sets write as text."""
    if type(value) is int and value >= 0:
        return value
    return int(value) if isinstance(value, str) and value.isdecimal() else None


def check_architecture(plans: Mapping[str, Any], name: str, what: str = "plans.json") -> None:
    """Refuse a plan that names other code for its network than networks.

    What is allowed is imported, but nothing of it is called.

    Args:
        plans: as in plans.json.
        name: of the configuration.
        what: the plan is, for messages.

    Raises:
        UserError: it does, or names what does not exist.
    """
    configuration = configuration_of(plans, name, what)
    if "architecture" not in configuration:
        old = configuration.get("UNet_class_name")
        if old not in OLD_NETWORKS:
            raise UserError(
                f"{what}: names neither an 'architecture' nor one of nnU-Net's first networks "
                f"({', '.join(OLD_NETWORKS)}), got {_short(old)}; {STOCK}"
            )
        return
    architecture = configuration["architecture"]
    arguments = architecture.get("arch_kwargs") if isinstance(architecture, dict) else None
    imports = architecture.get("_kw_requires_import") if isinstance(architecture, dict) else None
    if not isinstance(arguments, dict) or not isinstance(imports, list):
        must = "an object with 'network_class_name', 'arch_kwargs' and '_kw_requires_import'"
        raise _wrong(what, "architecture", must, architecture)
    _check_path(architecture.get("network_class_name"), what, network=True)
    for key in imports:
        if not isinstance(key, str) or key not in arguments:
            raise _wrong(what, "_kw_requires_import", "a list of names in 'arch_kwargs'", key)
        if arguments[key] is not None:
            _check_path(arguments[key], what, network=False)
    overrides = arguments.get("encoder_overrides")
    if isinstance(overrides, dict):  # they are arguments of timm, which can be told to read files
        for key, value in overrides.items():
            items = value if isinstance(value, list) else [value]
            if not all(v is None or isinstance(v, bool | int | float) for v in items):
                raise _wrong(what, "encoder_overrides", "an object of numbers", {key: value})


def _check_path(path: object, what: str, *, network: bool) -> None:
    """A dotted path to a network, or to a part of one."""
    refusal = UserError(
        f"{what}: names the code {_short(path)}; a model may name networks of {', '.join(PACKAGES)} only, and "
        f"nothing else is run. If it is its own network, {STOCK}"
    )
    if not isinstance(path, str) or not path.isascii():
        raise refusal
    if not all(part.isidentifier() for part in path.split(".")) or not _inside(path):
        raise refusal
    if network and path in BUILDERS:
        return
    try:
        found: Any = pydoc.locate(path)
    except pydoc.ErrorDuringImport as error:
        raise UserError(f"{what}: {path} cannot be imported ({error.value})") from error
    if found is None:
        if network and path.startswith("dynamic_network_architectures."):
            return  # nnU-Net looks for it in that package, should it have moved
        raise UserError(
            f"{what}: {path} does not exist in this installation; the model needs another version of it"
        )
    # a path may lead out again, as in torch.nn.functional.warnings
    from torch import nn

    if not (isinstance(found, type) and issubclass(found, nn.Module) and _inside(found.__module__)):
        raise refusal


def _inside(path: str) -> bool:
    return any(path.startswith(f"{package}.") or path == package for package in PACKAGES)
