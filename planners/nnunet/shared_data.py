"""Preprocessed data that plans share: the same folder where the same voxels would be in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

SHARED = "nnUNetPlans"
"""Plans that begin the names of shared data: nnU-Net's default ones; its residual presets share them too."""
SAME = (
    "preprocessor_name",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
"""Entries of a configuration that decide, with its spacing, which voxels preprocessing writes."""
SAME_FOR_ALL = ("transpose_forward", "foreground_intensity_properties_per_channel")
"""Entries of a plan that do; the second holds the intensities that CT is clipped to."""


def other_data(
    folder: Path, identifier: str, entries: Mapping[str, Any], *, except_for: str
) -> list[str]:
    """The differences to plans of a dataset that name the same data and preprocess them in another way.

    Args:
        folder: of the dataset in nnUNet_preprocessed.
        identifier: of the data.
        entries: ours: of `SAME`, of `SAME_FOR_ALL`, and "spacing" (mm).
        except_for: name of the plan that is made anew.

    Returns:
        Such as "nnUNetPlans.json has another 'spacing'"; empty if the data can be shared.
    """
    found = []
    for path in sorted(folder.glob("*.json")):
        plan = json.loads(path.read_text(encoding="utf-8"))
        if path.stem == except_for or not isinstance(plan, dict):
            continue
        for configuration in plan.get("configurations", {}).values():
            if configuration.get("data_identifier") != identifier:
                continue
            theirs = plan | configuration
            different = [key for key in (*SAME, *SAME_FOR_ALL) if theirs.get(key) != entries[key]]
            if not np.allclose(theirs["spacing"], entries["spacing"]):
                different.append("spacing")
            found += [f"{path.name} has another {key!r}" for key in different]
    return found
