"""Names of datasets, units and axes that configurations and commands accept. Imports nothing."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PREPARED_DATASETS = ("scannet", "scannet200", "s3dis", "semantickitti", "nuscenes")
"""Public datasets, which ``pointseg-prepare`` reads."""
DATASETS = ("synthetic", "folder", *PREPARED_DATASETS)
"""Datasets that ``pointseg.datasets.open_dataset`` opens."""
UNITS_M: Mapping[str, float] = MappingProxyType(
    {"metre": 1.0, "centimetre": 0.01, "millimetre": 0.001, "foot": 0.3048}
)
"""Metres per unit of coordinates, by the name of the unit."""
UP_AXES = ("z", "y", "-y")
"""Axes of a file's coordinates that can be the vertical one."""
PICTURE_UP_AXES = ("z", "-z", "y", "-y", "x", "-x")
"""Axes of a cloud's coordinates that can point up in pictures; -y in the frame of a depth camera."""
