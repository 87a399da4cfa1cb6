"""A tiny model of points, as pointseg-train leaves it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pointseg.config.recipe import Recipe
from pointseg.datasets.classes import ClassList
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter

CLASSES = ClassList(
    names=("floor", "wall", "thing"),
    colors=np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8),
    groups={"structure": (0, 1)},
)
RECIPE = Recipe(
    dataset="folder",
    features=("coord",),
    voxel_m=0.1,
    backbone="minkunet",
    backbone_config={"channels": (8,) * 8, "layers": (1,) * 8, "base_channels": 8},
)


def write_checkpoint(path: Path) -> Path:
    """Write it; its outputs depend on the points."""
    torch.manual_seed(0)
    model = build_segmenter(RECIPE, len(CLASSES.names), None)
    save_checkpoint(path, model.state_dict(), recipe=RECIPE, classes=CLASSES)
    return path
