"""S3DIS: 272 rooms in six areas with 13 classes; tested on Area 5, or on each area in turn.

Reads what ``pointseg-prepare --dataset s3dis`` wrote. Each area is a split. The score of the six folds is that
of their summed confusion matrices (``pointseg.evaluation.cross_validation``).

Source: Armeni 2016, 3D Semantic Parsing of Large-Scale Indoor Spaces.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pointseg.datasets.classes import ClassList
from pointseg.datasets.prepared import PreparedScenes

NAME = "s3dis"
AREAS = ("Area_1", "Area_2", "Area_3", "Area_4", "Area_5", "Area_6")

CLASSES = ClassList(
    names=(
        "ceiling", "floor", "wall", "beam", "column", "window", "door", "table", "chair", "sofa",
        "bookcase", "board", "clutter",
    ),
    colors=np.array(
        [
            [0, 255, 0], [0, 0, 255], [0, 255, 255], [255, 255, 0], [255, 0, 255], [100, 100, 255],
            [200, 200, 100], [170, 120, 200], [255, 0, 0], [200, 100, 100], [10, 200, 100],
            [200, 200, 200], [50, 50, 50],
        ],
        np.uint8,
    ),
)  # fmt: skip
"""The classes, with the colours that most publications use; every point is labelled."""


class S3DIS(PreparedScenes):
    """The prepared rooms; splits are the areas."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, name=NAME, prepared_as=NAME, classes=CLASSES)
