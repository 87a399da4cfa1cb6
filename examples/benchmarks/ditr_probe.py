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
from pointseg.config.recipe import Recipe
from pointseg.images.config import ImageConfig
from pointseg.loading.samples import Samples, or_raise
from pointseg.loading.scene_images import ImageLoader, SceneImageLoader
from pointseg.metrics import Confusion
from pointseg.models.image_encoder import open_image_features
from pointseg.segmenter import Segmenter

PENALTY = 3e-3
"""Weight of the squared weights of the classifier, for features of unit variance."""
ROUNDS = 60
"""Iterations of L-BFGS at most."""
HEAD_PENALTY, HEAD_SAMPLES = 1e-4, 16
"""The same for the head of a network, and the augmented scenes that it is fitted on."""


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
    classes = len(learn.classes.names)
    weight, bias = fit_linear(features, labels, classes, penalty=PENALTY)
    confusion = Confusion(classes)
    for some, truth in lifted(test, split, images, cache, None, seed):
        confusion.add((some @ weight.T + bias).argmax(1), truth)
    return confusion


def fit_linear(
    features: Tensor, labels: Tensor, classes: int, *, penalty: float
) -> tuple[Tensor, Tensor]:
    """(classes, C) weights and (classes,) biases of logistic regression on (N, C) features, as they are."""
    mean, spread = features.mean(0), features.std(0) + 1e-6
    features = (features - mean) / spread
    weight = torch.zeros(features.shape[1], classes, requires_grad=True)
    bias = torch.zeros(classes, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=ROUNDS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(features @ weight + bias, labels)
        value = value + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    scaled = (weight / spread[:, None]).detach()
    return scaled.T.contiguous(), (bias - mean @ scaled).detach()


def fit_head(segmenter: Segmenter, data: Any, recipe: Recipe, seed: int) -> None:
    """Set the head of a network without images to logistic regression on the features of its backbone.

    Fine-tuning that begins with a random head distorts what the backbone has learned; one that begins with
    a fitted head does not (Kumar et al., ICLR 2022, section 3).

    Args:
        segmenter: its backbone is pretrained.
        data: its training scenes are augmented, voxel-sampled and passed through.
        recipe: of the run.
        seed: of the augmentation.
    """
    samples = Samples(data, recipe, training=True, seed=seed)
    rounds = max(1, HEAD_SAMPLES // len(samples))
    drawn = [samples[number, index] for number in range(rounds) for index in range(len(samples))]
    segmenter.eval()
    with torch.no_grad():
        clouds = [or_raise(sample) for sample in drawn]
        features = torch.cat([segmenter.backbone(cloud).feat for cloud in clouds])
    labels = torch.cat([cloud.segment for cloud in clouds if cloud.segment is not None]).long()
    known = labels >= 0
    classes = segmenter.seg_head.out_features
    weight, bias = fit_linear(features[known], labels[known], classes, penalty=HEAD_PENALTY)
    segmenter.train()
    with torch.no_grad():
        segmenter.seg_head.weight.copy_(weight)
        segmenter.seg_head.bias.copy_(bias)
