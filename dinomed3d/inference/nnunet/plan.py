"""Settings of a trained model for prediction, from nnU-Net's plans; an adapter to nnU-Net."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dinomed3d.inference.nnunet.resample import Resampling
from dinomed3d.runtime.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from dinomed3d.inference.models.model import Model

NORMALISATIONS = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
"""Normalisation schemes of nnU-Net, by their names in plans."""
MOST_REGIONS = 62
"""The signs of this many logits fit into one integer."""
READERS: dict[str, Literal["nibabel", "itk"]] = {
    "NibabelIOWithReorient": "nibabel",
    "SimpleITKIOWithReorient": "itk",
}
"""Readers that reorient every volume to RAS -> the library whose rule for oblique axes they follow."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """A resampling function of the plans."""

    name: str
    """Name of nnU-Net's function."""
    order: int
    """Order of the spline."""
    order_separate: int
    """Order along the axis whose planes are resampled separately."""
    force_separate: bool | None
    """Whether planes are resampled separately; None decides by `threshold`."""
    threshold: float
    """Ratio of spacings above which planes are resampled separately."""
    clip: bool
    """Whether the result is clipped to the range of the input."""

    def between(
        self,
        shape: Sequence[int],
        new_shape: Sequence[int],
        spacing_mm: Sequence[float],
        new_spacing_mm: Sequence[float],
    ) -> Resampling:
        """The resampling from one grid to another, as nnU-Net does it.

        Args:
            shape: voxels before.
            new_shape: voxels after.
            spacing_mm: before.
            new_spacing_mm: after.
        """
        from nnunetv2.preprocessing.resampling.default_resampling import (
            determine_do_sep_z_and_axis,
        )

        separate, axis = determine_do_sep_z_and_axis(
            self.force_separate, spacing_mm, new_spacing_mm, self.threshold
        )
        orders = [self.order] * 3
        if separate:
            orders[int(axis)] = self.order_separate
        a, b, c = (int(n) for n in shape)
        d, e, f = (int(n) for n in new_shape)
        return Resampling(
            shape=(a, b, c),
            new_shape=(a, b, c) if self.name == "no_resampling_hack" else (d, e, f),
            orders=(orders[0], orders[1], orders[2]),
            separate=int(axis) if separate else None,
            clip=self.clip,
        )


@dataclass(frozen=True, kw_only=True)
class Channel:
    """How one channel's intensities are normalised."""

    scheme: str
    """One of NORMALISATIONS."""
    masked: bool
    """Whether only the voxels count that are not zero in all channels."""
    intensities: Mapping[str, float]
    """Statistics of the training set: mean, std, percentile_00_5, percentile_99_5."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Preprocessing, patch and labels of a model."""

    transpose: tuple[int, int, int]
    """Axes of the volume in the network's order."""
    spacing_mm: tuple[float, ...]
    """Spacing of the network's grid; two numbers for a 2D network."""
    patch: tuple[int, ...]
    """Shape of a window."""
    channels: tuple[Channel, ...]
    """Normalisation of each channel."""
    data: Sampling
    """Resampling of images."""
    logits: Sampling
    """Resampling of logits."""
    heads: int
    """Number of channels of the logits."""
    regions: tuple[int, ...] | None
    """Label of each region, in order, later ones overwrite earlier ones; None without regions."""
    reoriented_by: Literal["nibabel", "itk"] | None
    """The library by whose rule volumes are reoriented to RAS; None: they stay as stored."""

    @property
    def largest_label(self) -> int:
        """The highest value of a mask."""
        return max(self.regions) if self.regions is not None else self.heads - 1


def read_plan(model: Model) -> Plan:
    """Read the plans of a model.

    Raises:
        UserError: the model uses something that is not reproduced here.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(model.plans)
    configuration = manager.get_configuration(model.configuration)
    if configuration.preprocessor_name != "DefaultPreprocessor":
        raise _unknown("preprocessor", configuration.preprocessor_name, "DefaultPreprocessor")
    labels = manager.get_label_manager(model.dataset)
    if type(labels).__name__ != "LabelManager":
        raise _unknown("label manager", type(labels).__name__, "LabelManager")
    schemes = configuration.normalization_schemes
    for scheme in schemes:
        if scheme not in NORMALISATIONS:
            raise _unknown("normalisation", scheme, ", ".join(NORMALISATIONS))
    if labels.has_regions and len(labels.regions_class_order) > MOST_REGIONS:
        raise _unknown(
            "number of regions", len(labels.regions_class_order), f"up to {MOST_REGIONS}"
        )
    properties = manager.foreground_intensity_properties_per_channel
    a, b, c = (int(axis) for axis in manager.transpose_forward)
    return Plan(
        transpose=(a, b, c),
        spacing_mm=tuple(float(s) for s in configuration.spacing),
        patch=tuple(int(n) for n in configuration.patch_size),
        channels=tuple(
            Channel(
                scheme=scheme,
                masked=bool(configuration.use_mask_for_norm[i]),
                intensities=properties.get(str(i), {}),
            )
            for i, scheme in enumerate(schemes)
        ),
        data=_sampling(configuration.configuration, "resampling_fn_data"),
        logits=_sampling(configuration.configuration, "resampling_fn_probabilities"),
        heads=labels.num_segmentation_heads,
        regions=tuple(int(n) for n in labels.regions_class_order) if labels.has_regions else None,
        reoriented_by=READERS.get(model.plans["image_reader_writer"]),
    )


def _sampling(configuration: Mapping[str, Any], key: str) -> Sampling:
    name, options = configuration[key], dict(configuration[f"{key}_kwargs"])
    options.pop("is_seg", None)
    known: dict[str, Any] = {"force_separate_z": None, "separate_z_anisotropy_threshold": 3}
    if name == "resample_data_or_seg_to_shape":
        known |= {"force_separate_z": False, "order": 3, "order_z": 0}
    elif name == "resample_torch_fornnunet":
        known |= {"mode": "linear", "aniso_axis_mode": "nearest-exact"}
        for unused in ("num_threads", "device", "memefficient_seg_resampling"):
            options.pop(unused, None)
    elif name != "no_resampling_hack":
        raise _unknown(
            "resampling", name, "resample_data_or_seg_to_shape, resample_torch_fornnunet"
        )
    values = known | options
    order, order_separate = values.get("order", 1), values.get("order_z", 0)
    fixed = ("mode", "aniso_axis_mode")
    if set(values) != set(known) or any(values.get(k) != known.get(k) for k in fixed):
        raise _unknown(f"options of {name}", options, "nnU-Net's own")
    if key == "resampling_fn_probabilities" and (order > 1 or order_separate > 1):
        raise _unknown("resampling of probabilities of order", (order, order_separate), "0 and 1")
    return Sampling(
        name=name,
        order=order,
        order_separate=order_separate,
        force_separate=values["force_separate_z"],
        threshold=values["separate_z_anisotropy_threshold"],
        clip=name == "resample_data_or_seg_to_shape",
    )


def _unknown(what: str, found: object, known: str) -> UserError:
    return UserError(
        f"the model's plans name the {what} {found!r}; supported: {known}. Predict with nnUNetv2_predict, where "
        "that code is installed"
    )


def has_trainer(name: str) -> bool:
    """Whether a trainer of this name is installed."""
    return trainer_class(name).__name__ == name


def trainer_class(name: str) -> Any:
    """The trainer of this name, or nnU-Net's own: most trainers differ in training only.

    If a missing one builds another network, the weights do not fit and `build_network` refuses them.
    """
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    try:
        return recursive_find_trainer_class_by_name(name)
    except RuntimeError:
        return nnUNetTrainer


def build_network(model: Model, weights: Mapping[str, Any]) -> nn.Module:
    """Build the network of a model with the weights of one fold, every key accounted for.

    Args:
        model: whose plans and trainer describe the network.
        weights: of one fold.

    Raises:
        UserError: the weights do not fit.
    """
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    build = trainer_class(model.trainer).build_network_architecture
    manager = PlansManager(model.plans)
    configuration = manager.get_configuration(model.configuration)
    inputs = determine_num_input_channels(manager, configuration, model.dataset)
    heads = manager.get_label_manager(model.dataset).num_segmentation_heads
    if "plans_manager" in inspect.signature(build).parameters:
        network = build(manager, configuration, inputs, heads, enable_deep_supervision=False)
    else:  # a trainer written before nnU-Net 2.7
        network = build(
            configuration.network_arch_class_name,
            configuration.network_arch_init_kwargs,
            configuration.network_arch_init_kwargs_req_import,
            inputs,
            heads,
            enable_deep_supervision=False,
        )
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise UserError(
            f"model {model.source}: the weights do not fit the network that the plan and the trainer "
            f"{model.trainer} describe ({first}); they belong to other plans or another version"
            + (
                ""
                if has_trainer(model.trainer)
                else ", or to that trainer, which is not installed here"
            )
        ) from error
    return network.eval()
