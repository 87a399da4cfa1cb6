"""A data set in memory that a tiny network learns in seconds: floors, and boxes that stand on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pointseg.config.presets import RECIPES
from pointseg.config.recipe import Recipe
from pointseg.datasets.classes import ClassList
from pointseg.datasets.errors import DatasetError
from pointseg.scene import Scene
from pointseg.training.train import TrainSpec
from pointseg.transforms import Augmentation

CLASSES = ClassList(
    names=("floor", "box"), colors=np.array([[120, 90, 60], [60, 120, 200]], np.uint8)
)


@dataclass(frozen=True)
class Boxes:
    """Scenes by number; those named in ``broken`` cannot be read, those in ``without`` are not there."""

    broken: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    count: int = 5
    validated: int = 2
    name: str = "boxes"
    classes: ClassList = CLASSES
    fields: frozenset[str] = frozenset({"color"})

    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    def scenes(self, split: str) -> tuple[str, ...]:
        count = self.count if split == "train" else self.validated
        return tuple(name for k in range(count) if (name := f"{split}{k}") not in self.without)

    def load(self, split: str, scene: str) -> Scene:
        if scene in self.broken:
            raise DatasetError(f"{scene}: is truncated; copy it again")
        rng = np.random.default_rng([len(split), int(scene.removeprefix(split))])
        floor = rng.uniform(0, 2, (400, 3)) * [1, 1, 0.02]
        box = rng.uniform(0, 0.5, (200, 3)) + [*rng.uniform(0.2, 1.3, 2), 0.1]
        segment = np.repeat(np.array([0, 1, -1], np.int32), (400, 190, 10))
        return Scene(
            coord=np.concatenate([floor, box]).astype(np.float32),
            fields={"segment": segment, "color": rng.uniform(0, 255, (600, 3)).astype(np.float32)},
            name=scene,
        )


RECIPE: Recipe = replace(
    RECIPES["folder"],
    dataset="boxes",
    backbone="minkunet",
    backbone_config={"base_channels": 4, "channels": [4] * 8, "layers": [1] * 8},
    features=("color",),
    voxel_m=0.1,
    max_points=300,
    epochs=4,
    evaluations=2,
    batch_size=2,
    mix3d=0.5,
    augmentation=replace(Augmentation(), elastic_probability=0.0),
    test_splits=("val",),
)


def spec(out: Path, *, recipe: Recipe = RECIPE, **changes: Any) -> TrainSpec:
    """A run of ten steps."""
    return replace(TrainSpec(dataset=Boxes(), recipe=recipe, out=out), **changes)
