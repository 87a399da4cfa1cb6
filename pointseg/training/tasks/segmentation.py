"""The segmentation task: cross-entropy and Lovász-softmax on labels, validated by mIoU over voxels."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from dinomed3d.lifting import Encoder
from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.config.recipe import Recipe
from pointseg.datasets.dataset import Dataset, DescribesLabels, KnowsShares
from pointseg.datasets.label_counts import label_counts
from pointseg.metrics import Confusion
from pointseg.models.checkpoint import save_checkpoint
from pointseg.models.network import build_segmenter
from pointseg.most_likely import most_likely
from pointseg.segmenter import Segmenter
from pointseg.training.step.losses import class_weights, segmentation_loss

WHOLE = 10**12
"""Number of points that a published class frequency of 1 is converted to."""


class Segmentation:
    """A ``TrainingTask``: segmentation into the classes of a dataset (losses as in PTv3, Wu et al., CVPR 2024)."""

    metric_names = ("val_voxel_miou", "val_voxel_accuracy")
    labelled = True
    needs_shown = False

    def __init__(self, dataset: Dataset, recipe: Recipe, encoder: Encoder | None = None) -> None:
        """Set up the task.

        Args:
            dataset: has labels.
            recipe: decides network and losses.
            encoder: image encoder, if the recipe uses images and no feature cache is given.
        """
        self.dataset, self.recipe, self.encoder = dataset, recipe, encoder
        self.names = dataset.classes.names
        self.weights: Tensor | None = None

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Cross-entropy and, if its weight is above 0, Lovasz-softmax."""
        return ("cross_entropy", "lovasz") if self.recipe.lovasz else ("cross_entropy",)

    def build(self) -> Segmenter:
        """The segmenter of the recipe."""
        return build_segmenter(self.recipe, len(self.names), self.encoder)

    def begin(self) -> None:
        """Compute the class weights from the labels of all training scenes.

        Raises:
            UserError: fewer than two classes have points.
        """
        kind = self.recipe.class_weights
        if kind == "none":
            return
        counts, points = self._label_counts()
        try:
            self.weights = class_weights(counts, kind, total=points)
        except ValueError as error:
            raise UserError(f"--class-weights {kind}: {error}") from error

    def _label_counts(self) -> tuple[NDArray[np.int64], int]:
        """Points of each class, and all points: as published, or counted by all devices together."""
        splits = self.recipe.train_splits
        if isinstance(self.dataset, KnowsShares) and splits == self.dataset.shares_of:
            return np.rint(np.array(self.dataset.class_shares) * WHOLE).astype(np.int64), WHOLE
        many = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank = torch.distributed.get_rank() if many else 0
        world = torch.distributed.get_world_size() if many else 1
        scenes = [(split, name) for split in splits for name in self.dataset.scenes(split)]
        progress = tqdm(
            scenes[rank::world], "counting labels", file=sys.stderr, disable=rank > 0, delay=2
        )
        found = label_counts(self.dataset, progress)
        if not many:
            return found
        parts: list[Any] = [None] * world
        torch.distributed.all_gather_object(parts, found)
        return sum(counts for counts, _ in parts), sum(points for _, points in parts)

    def state(self) -> dict[str, Any]:
        """The class weights, and what labels mean."""
        weights = None if self.weights is None else self.weights.cpu()
        return {"weights": weights, "meaning_of_labels": self._meaning_of_labels()}

    def _meaning_of_labels(self) -> str:
        """What the user says of them; empty for datasets that know it themselves."""
        dataset = self.dataset
        return dataset.meaning_of_labels if isinstance(dataset, DescribesLabels) else ""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Load the class weights."""
        self.weights = state["weights"]

    def losses(self, output: Tensor, cloud: Cloud) -> dict[str, Tensor]:
        """Losses of (N, K) logits."""
        assert cloud.segment is not None  # scenes without labels are refused before
        weights = None if self.weights is None else self.weights.to(output.device)
        return segmentation_loss(
            output.float(),
            cloud.segment,
            weights=weights,
            lovasz=self.recipe.lovasz,
            smoothing=self.recipe.label_smoothing,
        )

    def update_metrics(self, output: Tensor, cloud: Cloud) -> Tensor:
        """(K, K) confusion matrix."""
        assert cloud.segment is not None
        confusion = Confusion(len(self.names))
        confusion.add(most_likely(output, "of the validation"), cloud.segment)
        return torch.as_tensor(confusion.matrix)

    def empty_metrics(self) -> Tensor:
        """(K, K) zeros."""
        return torch.as_tensor(Confusion(len(self.names)).matrix)

    def scores(self, total: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """MIoU and accuracy; and the IoU of each class.

        Raises:
            UserError: no point is labelled, so that the scores would mean nothing.
        """
        confusion = Confusion.of(total.cpu().numpy())
        if not confusion.matrix.any():
            raise UserError(
                f"no point of the validation clouds ({', '.join(self.recipe.val_splits)}) has a label of a class, so "
                "there is no score to choose the best model by; the run is kept: go on with --resume when their files "
                "have labels"
            )
        values = (confusion.miou(), confusion.accuracy())
        each = zip(self.names, confusion.iou(), strict=True)
        return (
            dict(zip(self.metric_names, values, strict=True)),
            {f"val_voxel_iou/{name}": float(value) for name, value in each},
        )

    def save(
        self, path: Path, model: Mapping[str, Tensor], training: Mapping[str, Any] | None
    ) -> None:
        """Write a model for ``pointseg-test`` and ``pointseg-predict``."""
        save_checkpoint(
            path, model, recipe=self.recipe, classes=self.dataset.classes, training=training
        )

    def check(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse a checkpoint with other classes, or with labels of the files that became other classes."""
        if tuple(content.get("classes", ())) != tuple(self.names):
            raise UserError(f"--resume: {path} was trained on other classes")
        before = content["training"].get("meaning_of_labels")  # not in older checkpoints
        if before is not None and before != self._meaning_of_labels():
            raise UserError(
                f"--resume: {path} was trained with other 'label' or 'labels' in the description of the dataset, "
                "the trajectory would not be the same; restore them, or give another --out"
            )
