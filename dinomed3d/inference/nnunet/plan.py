"""Settings of a trained model for prediction, from nnU-Net's plans; an adapter to nnU-Net."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from dinomed3d.inference.nnunet.previous_stage import PreviousStage
from dinomed3d.inference.nnunet.resample import Resampling
from dinomed3d.runtime.errors import UserError

if TYPE_CHECKING:
    from dinomed3d.inference.models.model import Model

NORMALISATIONS = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)
"""Normalisation schemes of nnU-Net, by their names in plans."""
MAX_REGIONS = 62
"""The signs of this many logits fit into one integer."""
UNITLESS_READERS = ("NibabelIO", "NibabelIOWithReorient")
"""Readers that take the voxel size of a NIfTI header as it is, whatever its unit."""
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
    unitless_reader: str | None = None
    """The reader of the training, if it takes the numbers of a NIfTI header as they are; None: in mm."""
    previous: PreviousStage | None = None
    """How the labels of a cascade's first model become input; None without a cascade."""

    @property
    def inputs(self) -> int:
        """Number of channels of the network's input."""
        return len(self.channels) + (0 if self.previous is None else len(self.previous.labels))

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
    schemes = configuration.normalization_schemes
    for what, found, supported in (
        ("preprocessor", configuration.preprocessor_name, ("DefaultPreprocessor",)),
        # by its name in the plans: nnU-Net calls whatever has that name
        ("label manager", model.plans.get("label_manager", "LabelManager"), ("LabelManager",)),
        *(("normalisation", scheme, NORMALISATIONS) for scheme in schemes),
    ):
        if found not in supported:
            raise _unsupported(what, found, ", ".join(supported))
    labels = manager.get_label_manager(model.dataset)
    regions = tuple(int(n) for n in labels.regions_class_order) if labels.has_regions else None
    if regions is not None and len(regions) > MAX_REGIONS:
        raise _unsupported("number of regions", len(regions), f"up to {MAX_REGIONS}")
    properties = manager.foreground_intensity_properties_per_channel
    a, b, c = (int(axis) for axis in manager.transpose_forward)
    reader = model.plans["image_reader_writer"]
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
        regions=regions,
        reoriented_by=READERS.get(reader),
        unitless_reader=reader if reader in UNITLESS_READERS else None,
        previous=_previous_stage(configuration, labels),
    )


def _previous_stage(configuration: Any, labels: Any) -> PreviousStage | None:
    """nnU-Net's own resampling of label images, whose ties depend on the version that is installed."""
    if configuration.previous_stage_name is None:
        return None
    key = "resampling_fn_seg"
    _sampling(configuration.configuration, key)  # refuses what is not nnU-Net's
    resample: Callable[..., Any] = configuration.resampling_fn_seg
    return PreviousStage(labels=tuple(int(v) for v in labels.foreground_labels), resample=resample)


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
        raise _unsupported(
            "resampling", name, "resample_data_or_seg_to_shape, resample_torch_fornnunet"
        )
    values = known | options
    order, order_separate = values.get("order", 1), values.get("order_z", 0)
    fixed = ("mode", "aniso_axis_mode")
    if set(values) != set(known) or any(values.get(k) != known.get(k) for k in fixed):
        raise _unsupported(f"options of {name}", options, "nnU-Net's own")
    if key == "resampling_fn_probabilities" and (order > 1 or order_separate > 1):
        raise _unsupported(
            "resampling of probabilities of order", (order, order_separate), "0 and 1"
        )
    return Sampling(
        name=name,
        order=order,
        order_separate=order_separate,
        force_separate=values["force_separate_z"],
        threshold=values["separate_z_anisotropy_threshold"],
        clip=name == "resample_data_or_seg_to_shape",
    )


def _unsupported(what: str, found: object, known: str) -> UserError:
    return UserError(
        f"the model's plans name the {what} {found!r}; supported: {known}. Predict with nnUNetv2_predict, where "
        "that code is installed"
    )
