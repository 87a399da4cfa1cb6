"""Floors painted in two colours that only their images show, and a tiny encoder that tells them apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dinomed3d.lifting import Camera
from pointseg.config.recipe import Recipe
from pointseg.datasets.classes import ClassList
from pointseg.datasets.errors import DatasetError
from pointseg.images.config import ImageConfig
from pointseg.images.readers.frame import Frame
from pointseg.models.image_encoder import open_for
from pointseg.scene import Scene
from pointseg.training.tasks.segmentation import Segmentation
from pointseg.training.train import TrainSpec
from tests.pointseg.tiny import RECIPE

CLASSES = ClassList(
    names=("red", "green"), colors=np.array([[200, 30, 30], [30, 200, 30]], np.uint8)
)
SIZE = 64
"""Pixels of the images, which show the floor of 2 m x 2 m from above."""
TILE_M = 0.5


@dataclass(frozen=True)
class Paint:
    """An image in memory."""

    number: int

    def read(self) -> NDArray[np.uint8]:
        place = (np.arange(SIZE) + 0.5) * 2 / SIZE
        green = tiles(self.number, np.stack(np.meshgrid(place, place), -1).reshape(-1, 2))
        return CLASSES.colors[green].reshape(SIZE, SIZE, 3)

    def key(self) -> str:
        return f"paint {self.number}"

    def __str__(self) -> str:
        return f"paint-{self.number}"


def tiles(number: int, xy: NDArray[Any]) -> NDArray[np.int32]:
    """(N,) which colour the floor has at (N, 2) metres."""
    colours = np.random.default_rng([7, number]).integers(0, 2, (4, 4)).astype(np.int32)
    cell = np.clip((xy / TILE_M).astype(int), 0, 3)
    return colours[cell[:, 0], cell[:, 1]]


def above(name: str, number: int) -> Frame:
    """A camera 2 m above the middle of the floor, whose image is just the floor."""
    pose = torch.tensor(
        [[1.0, 0, 0, -1], [0, 1, 0, -1], [0, 0, 1, 2], [0, 0, 0, 1]], dtype=torch.float64
    )
    focal = float(SIZE)
    intrinsics = torch.tensor([[focal, 0, SIZE / 2], [0, focal, SIZE / 2], [0, 0, 1.0]])
    camera = Camera(intrinsics=intrinsics, size=(SIZE, SIZE), world_to_camera=pose)
    return Frame(name=name, camera=camera, image=Paint(number))


@dataclass(frozen=True)
class Painted:
    """Scenes by number; those named in ``blind`` have no images, those in ``hidden`` no labels."""

    blind: tuple[str, ...] = ()
    views: int = 2
    colored: bool = False
    """Whether the points show the paint, too."""
    name: str = "painted"
    classes: ClassList = CLASSES
    fields: frozenset[str] = frozenset({"color"})

    def splits(self) -> tuple[str, ...]:
        return ("train", "val")

    def scenes(self, split: str) -> tuple[str, ...]:
        return tuple(f"{split}{k}" for k in range(6 if split == "train" else 2))

    def load(self, split: str, scene: str) -> Scene:
        if scene not in self.scenes(split):
            raise DatasetError(f"{scene}: is not there")
        rng = np.random.default_rng([3, self._number(split, scene)])
        coord = (rng.uniform(0, 2, (600, 3)) * [1, 1, 0.001]).astype(np.float32)
        segment = tiles(self._number(split, scene), coord[:, :2])
        color = np.full((600, 3), 100, np.float32)
        if self.colored:
            color = CLASSES.colors[segment].astype(np.float32)
        return Scene(coord=coord, fields={"segment": segment, "color": color}, name=scene)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        if scene in self.blind:
            return ()
        return tuple(above(f"{scene}-{k}", self._number(split, scene)) for k in range(self.views))

    @staticmethod
    def _number(split: str, scene: str) -> int:
        return int(scene.removeprefix(split)) + (100 if split == "val" else 0)


IMAGES = ImageConfig(
    encoder_config={"embed_dim": 24, "depth": 1, "num_heads": 2},
    size=(SIZE, SIZE),
    views=2,
    augment=False,
)
SEEING: Recipe = replace(
    RECIPE,
    dataset="painted",
    images=IMAGES,
    epochs=12,
    mix3d=0.5,
    augmentation=RECIPE.augmentation.none(),
)


def spec(
    out: Path, *, dataset: Painted | None = None, recipe: Recipe = SEEING, **changes: Any
) -> TrainSpec:
    """A run with the tiny encoder, whose weights are always the same."""
    dataset = dataset or Painted()
    assert recipe.images is not None
    encoder, images = open_for(recipe.images, "none")
    recipe = replace(recipe, images=images)
    made = TrainSpec(
        dataset=dataset, recipe=recipe, out=out, task=Segmentation(dataset, recipe, encoder)
    )
    return replace(made, **changes)
