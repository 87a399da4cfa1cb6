"""The 22 classes of the Waymo Open Dataset's benchmark of 3D semantic segmentation."""

from __future__ import annotations

from pointseg.datasets.classes import ClassList, distinct_colors
from pointseg.datasets.labels import LabelMap
from pointseg.scene import IGNORE

NAME = "waymo"

CLASSES = ClassList(
    names=(
        "car", "truck", "bus", "other_vehicle", "motorcyclist", "bicyclist", "pedestrian", "sign",
        "traffic_light", "pole", "construction_cone", "bicycle", "motorcycle", "building", "vegetation",
        "tree_trunk", "curb", "road", "lane_marker", "other_ground", "walkable", "sidewalk",
    ),
    colors=distinct_colors(22),
)  # fmt: skip
"""The classes of the benchmark; their ids in files are one more, 0 is undefined."""

LABEL_MAP = LabelMap(NAME, {raw: raw - 1 if raw else IGNORE for raw in range(len(CLASSES) + 1)})
"""Training index of every id in the label tables."""
