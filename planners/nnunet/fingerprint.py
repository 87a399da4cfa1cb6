"""Checks of a dataset's fingerprint before planning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dinomed3d.runtime.errors import UserError

_AGAIN = "extract the fingerprint again (nnUNetv2_extract_fingerprint -d ID --clean)"


def check_fingerprint(
    fingerprint: Mapping[str, Any], normalization: Sequence[str], foreground: Sequence[Any]
) -> None:
    """Refuse a dataset that no plan can be made for.

    Args:
        fingerprint: nnU-Net's dataset_fingerprint.json.
        normalization: nnU-Net's scheme per channel.
        foreground: labels or regions to segment.

    Raises:
        UserError: no cases, a spacing or shape that is not positive, no labels, or no foreground
            intensities where the normalisation needs them.
    """
    if not foreground:
        raise UserError(
            "planner: dataset.json has no foreground: 'labels' must have at least one label other than 'background' "
            "and 'ignore'"
        )
    spacings, shapes = fingerprint.get("spacings", []), fingerprint.get("shapes_after_crop", [])
    if not spacings or len(spacings) != len(shapes):
        raise UserError(
            "planner: the fingerprint must have one spacing and one shape per training case, got "
            f"{len(spacings)} spacings and {len(shapes)} shapes; check imagesTr and {_AGAIN}"
        )
    for what, values in (("spacing", spacings), ("shape", shapes)):
        for number, axes in enumerate(values):
            if len(axes) != 3 or any(not 0 < value < math.inf for value in axes):
                raise UserError(
                    f"planner: {what} {list(axes)} of training case number {number + 1} (in the order of their names) "
                    f"must be three positive numbers; correct the header of that image and {_AGAIN}"
                )
    intensities = fingerprint.get("foreground_intensity_properties_per_channel", {})
    for channel, scheme in enumerate(normalization):
        known = intensities.get(str(channel), {})
        wanted = ("mean", "std", "percentile_00_5", "percentile_99_5")
        if scheme == "CTNormalization" and any(
            not math.isfinite(known.get(name) or math.nan) and known.get(name) != 0
            for name in wanted
        ):
            raise UserError(
                f"planner: channel {channel} is normalised as CT by the intensities of its foreground, and the "
                "fingerprint has none: no training label has a foreground voxel. Check labelsTr (are the label "
                f"values those of dataset.json?) and {_AGAIN}"
            )
