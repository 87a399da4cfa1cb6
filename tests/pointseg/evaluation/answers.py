"""A network whose answers are known, and clouds to ask it about."""

from __future__ import annotations

import numpy as np
from torch import nn

from pointseg.config.recipe import Recipe
from pointseg.datasets.classes import ClassList
from pointseg.datasets.named_scenes import require_scene, require_split
from pointseg.models.trained_model import TrainedSpec
from pointseg.scene import Scene

CLASSES = ClassList(
    names=("floor", "wall", "thing"),
    colors=np.array([[200, 30, 30], [30, 200, 30], [30, 30, 200]], np.uint8),
    groups={"structure": (0, 1)},
)
RECIPE = Recipe(dataset="folder", features=("color",), voxel_m=0.5, test_splits=("test",))


class ByColor(nn.Module):
    """The class is the strongest colour; counts how often it was asked."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def forward(self, cloud):
        self.asked += 1
        return cloud.feat[:, :3] * 8


def trained(sha256="abc", recipe=RECIPE):
    return TrainedSpec(recipe=recipe, classes=CLASSES, sha256=sha256)


def colored(classes, *, seed=0, count=400, name="s", truth=None):
    """A cloud whose colours say the classes."""
    rng = np.random.default_rng(seed)
    coord = (rng.random((count, 3)) * [4, 3, 1]).astype(np.float32)
    classes = np.resize(np.asarray(classes, np.int64), count)
    color = np.zeros((count, 3), np.float32)
    color[np.arange(count), classes] = 255
    fields = {"color": color}
    if truth is not None:
        fields["segment"] = np.resize(np.asarray(truth), count).astype(np.int32)
    return Scene(coord=coord, fields=fields, name=name)


class Clouds:
    """A dataset in memory."""

    name = "clouds"
    classes = CLASSES
    fields = frozenset({"color"})

    def __init__(self, scenes):
        self.held = scenes

    def splits(self):
        return tuple(self.held)

    def scenes(self, split):
        require_split(self.name, split, self.splits())
        return tuple(self.held[split])

    def load(self, split, scene):
        require_scene(self.name, split, scene, self.scenes(split))
        return self.held[split][scene]
