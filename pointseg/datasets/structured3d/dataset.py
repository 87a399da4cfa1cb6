"""Structured3D: rendered rooms with 25 of the NYU40 classes, for pretraining.

Reads what ``pointseg-prepare --dataset structured3d`` wrote. Scenes are rooms, ``scene_00000_room_485142``.

Source: Zheng 2020, arXiv:1908.00222; the 25 classes are those of Swin3D (Yang 2023, arXiv:2304.06906).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pointseg.datasets.classes import ClassList, distinct_colors
from pointseg.datasets.labels import LabelMap
from pointseg.datasets.prepared import PreparedScenes
from pointseg.scene import IGNORE

NAME = "structured3d"

NYU40_IDS = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16, 17, 18, 19, 22, 24, 25, 32, 34, 35, 38, 39, 40,
)  # fmt: skip
"""Ids of the classes in the semantic images, by training index."""

CLASSES = ClassList(
    names=(
        "wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window", "picture",
        "desk", "shelves", "curtain", "dresser", "pillow", "mirror", "ceiling", "refrigerator",
        "television", "nightstand", "sink", "lamp", "otherstructure", "otherfurniture", "otherprop",
    ),
    colors=distinct_colors(25),
)  # fmt: skip
"""The 25 classes, each more than a thousandth of the points."""

LABEL_MAP = LabelMap(
    NAME,
    {
        raw: NYU40_IDS.index(raw) if raw in NYU40_IDS else IGNORE
        for raw in range(41)  # 0: none
    },
)
"""Training index of every id of NYU40."""

INVALID_SCENES = frozenset({1155, 1192, 1714, 1816, 1852, 3398})
"""Numbers of the scenes that the dataset's errata declare invalid."""
SPLITS: Mapping[str, range] = MappingProxyType(
    {"train": range(3000), "val": range(3000, 3250), "test": range(3250, 3500)}
)
"""Numbers of the scenes of each split."""


def split_of(number: int) -> str | None:
    """train, val or test, by the number of a scene; None for numbers that are not in the dataset."""
    return next((split for split, numbers in SPLITS.items() if number in numbers), None)


class Structured3D(PreparedScenes):
    """The prepared rooms; all have labels."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, name=NAME, prepared_as=NAME, classes=CLASSES, has_instances=False)
