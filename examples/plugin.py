"""A backbone and a dataset of your own, to copy. In the folder of this file:

    pointseg-train --dataset plugin:Hills --backbone plugin:CellNet --out RUN
    pointseg-test -m RUN/best.pt --dataset plugin:Hills --backbone plugin:CellNet
    pointseg-predict CLOUD.ply -m RUN/best.pt --backbone plugin:CellNet -o OUT

Arguments of the backbone's constructor: `--override backbone_config.width=64`. The constructor of a dataset gets
`--root DIR` and `--config FILE` if it has parameters of these names.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pointseg import Cloud, Scene
from pointseg.backbones import Backbone, Features, Level
from pointseg.datasets.classes import ClassList


class Hills:
    """A dataset (`pointseg.datasets.dataset.Dataset`): trees and houses on hills, made up here."""

    name = "hills"
    classes = ClassList(
        names=("ground", "tree", "house"),
        colors=np.array([[170, 140, 100], [60, 140, 60], [200, 80, 60]], np.uint8),
    )
    fields = frozenset({"strength"})  # what every scene has, of color, normal, strength, returns
    voxel_m = 0.5  # optional: the usual voxel size

    def __init__(self, root: Path | None = None, points: int = 3000) -> None:
        """`root` is --root: look for your files there."""
        self.points = points
        self._names = {"train": ("a", "b", "c", "d"), "val": ("e",)}

    def splits(self) -> tuple[str, ...]:
        """Training uses train and val; --override train_splits=... names others."""
        return tuple(self._names)

    def scenes(self, split: str) -> tuple[str, ...]:
        """The names of the scenes of a split, always in the same order."""
        return self._names[split]

    def load(self, split: str, scene: str) -> Scene:
        """One cloud: read your file here."""
        rng = np.random.default_rng([ord(each) for each in split + scene])
        xy = rng.uniform(0, 40, (self.points, 2))
        centres = rng.uniform(5, 35, (6, 2))
        away = xy[:, None] - centres
        is_tree = (np.linalg.norm(away[:, :3], axis=2) < 3).any(1)
        is_house = (np.abs(away[:, 3:]) < 3).all(2).any(1) & ~is_tree
        segment = np.select([is_tree, is_house], [1, 2], 0).astype(np.int32)
        z = 2 * np.sin(xy[:, 0] / 10) + np.select(
            [is_tree, is_house], [rng.uniform(1, 6, len(xy)), 4], 0
        )
        strength = np.select([is_tree, is_house], [0.3, 0.8], 0.5) + rng.normal(0, 0.1, len(xy))
        return Scene(
            coord=np.column_stack([xy, z]).astype(np.float32),  # metres, z up
            fields={
                "strength": np.clip(strength, 0, 1).astype(np.float32)[:, None],
                "segment": segment,  # rows of `classes`; -1 for points that do not count
            },
            name=scene,
        )


class CellNet(Backbone):
    """A backbone (`pointseg.backbones.Backbone`): each point, and the mean of its cell of 8 x 8 x 8 voxels."""

    def __init__(self, in_channels: int, width: int = 32) -> None:
        super().__init__()
        self.in_channels = in_channels  # of `cloud.feat`, as the recipe's features decide
        self.out_channels = 2 * width  # of the features returned; the classifier reads these
        self.level_channels = (2 * width, width)  # of `levels`, which --cls-token-loss reads
        self.point = nn.Sequential(
            nn.Linear(in_channels + 3, width), nn.BatchNorm1d(width), nn.ReLU()
        )
        self.cell = nn.Sequential(nn.Linear(width, width), nn.ReLU())

    def forward(self, cloud: Cloud) -> Features:
        """Features of the points of a batch of clouds; `cloud.offset` says where each cloud ends."""
        self.check_input(cloud, None, None)
        batch = torch.bucketize(
            torch.arange(len(cloud), device=cloud.coord.device), cloud.offset, right=True
        )
        cells = torch.cat([batch[:, None], cloud.grid_coord.div(8, rounding_mode="floor")], dim=1)
        unique, parent = cells.unique(dim=0, return_inverse=True)
        centre = mean_of(cloud.coord, parent, len(unique))
        inside = cloud.coord - centre[parent]
        point = self.point(torch.cat([cloud.feat, inside], dim=1))
        cell = self.cell(mean_of(point, parent, len(unique)))
        feat = torch.cat([point, cell[parent]], dim=1)
        ends = torch.bincount(unique[:, 0], minlength=len(cloud.offset)).cumsum(0)
        fine = Level(cloud.coord, cloud.grid_coord, cloud.offset, feat, parent)
        coarse = Level(centre, unique[:, 1:], ends, cell, None)
        return Features(feat, (fine, coarse))


def mean_of(values: Tensor, group: Tensor, count: int) -> Tensor:
    """(count, C) means of the rows of each group."""
    total = values.new_zeros(count, values.shape[1]).index_add(0, group, values)
    return total / torch.bincount(group, minlength=count)[:, None]
