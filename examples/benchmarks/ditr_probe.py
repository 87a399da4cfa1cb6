"""A linear classifier on lifted image features: what the frozen encoder knows, without any 3D network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dinomed3d.lifting import FeatureMap, Mean, sample_and_fuse, sample_bilinear
from pointseg.images.config import ImageConfig
from pointseg.loading.scene_images import ImageLoader, SceneImageLoader
from pointseg.metrics import Confusion
from pointseg.training.image_encoder import open_image_features

PENALTY = 3e-3
"""Weight of the squared weights of the classifier, for features of unit variance."""
ROUNDS = 60
"""Iterations of L-BFGS at most."""


def lifted(
    data: Any, split: str, images: ImageConfig, cache: Path, points: int | None, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """(n, C) features, the mean over views, and (n,) labels of the visible labelled points of each scene.

    Args:
        data: dataset with images.
        split: of it.
        images: how images are used.
        cache: folder of cached features.
        points: number of points drawn from each scene; None: all.
        seed: of the draw.
    """
    found = open_image_features(images, weights=None, cache=cache, log=lambda line: None)
    loader = SceneImageLoader(data, ImageLoader(found.config, found.cache))
    rng = np.random.default_rng(seed)
    height, width = images.size
    for name in data.scenes(split):
        scene, views = loader.load(split, name, data.load(split, name))
        rows = np.flatnonzero(scene["segment"] >= 0)
        if points is not None and len(rows) > points:
            rows = rng.choice(rows, points, replace=False)
        assert views.maps is not None
        features, seen = sample_and_fuse(
            FeatureMap(views.maps.float(), found.config.stride, (height, width)),
            torch.from_numpy(scene["image_coord"][rows]),
            torch.from_numpy(scene["image_mask"][rows]),
            fuse=Mean(),
            sample=sample_bilinear,
        )
        yield features[seen], torch.from_numpy(scene["segment"][rows]).long()[seen]


def linear_probe(
    learn: Any, test: Any, split: str, images: ImageConfig, cache: Path, *, seed: int
) -> Confusion:
    """Fit multinomial logistic regression on the training scenes of ``learn``; test on all points of ``test``."""
    number = len(learn.scenes("train"))
    drawn = list(lifted(learn, "train", images, cache, 48_000 // number, seed))
    features, labels = (torch.cat(part) for part in zip(*drawn, strict=True))
    mean, spread = features.mean(0), features.std(0) + 1e-6
    features = (features - mean) / spread
    classes = len(learn.classes.names)
    weight = torch.zeros(features.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(features @ weight + bias, labels)
        value = value + PENALTY * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    confusion = Confusion(classes)
    with torch.no_grad():
        for some, truth in lifted(test, split, images, cache, None, seed):
            guess = ((some - mean) / spread @ weight + bias).argmax(1)
            confusion.add(guess, truth)
    return confusion
