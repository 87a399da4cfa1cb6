"""The distillation task: a backbone predicts image features of visible points, without labels (D-DITR)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dinomed3d.lifting import Encoder
from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.config.recipe import Recipe
from pointseg.distill import DistillationOutput, Distiller, cosine_distance
from pointseg.images.config import ImageConfig
from pointseg.models.checkpoint import DISTILLED, write_content
from pointseg.models.network import backbone_of, point_images


class Distillation:
    """A ``TrainingTask``: 1 - cosine similarity to the features of a frozen image encoder (Knaebel et al. 2025)."""

    metric_names = ("val_cosine",)
    labelled = False

    def __init__(
        self,
        recipe: Recipe,
        encoder: Encoder | None,
        *,
        datasets: int = 1,
        cls_token_loss: float = 0.0,
    ) -> None:
        """Set up the task.

        Args:
            recipe: of the student, with the images of the teacher.
            encoder: the teacher; None: clouds come with cached features.
            datasets: number of datasets that have a projection head of their own.
            cls_token_loss: weight of the loss on the class token of each image; 0: none.

        Raises:
            UserError: a recipe without images, or that trains a part of the student; a weight below 0; class
                tokens of images in tiles.
        """
        if recipe.images is None:
            raise UserError("Distillation: 'recipe' must have images, the input of the teacher")
        if recipe.tune != "all":
            raise UserError(f"tune={recipe.tune}: all of a student is trained; leave it at all")
        if cls_token_loss < 0:
            raise UserError(f"--cls-token-loss: must be >= 0, got {cls_token_loss}")
        # The teacher is frozen, and points that it does not see have no target.
        plain = ImageConfig()
        for name in ("missing_token", "view_drop", "point_drop", "pooling"):
            value = getattr(recipe.images, name)
            if value != getattr(plain, name):
                raise UserError(
                    f"images.{name}: has no effect on a frozen teacher; leave it at its default, got {value!r}"
                )
        if cls_token_loss and recipe.images.tile is not None:
            raise UserError(
                "--cls-token-loss: class tokens describe whole images, images.tile encodes them in parts; leave out "
                "one of them"
            )
        self.recipe, self.images, self.encoder = recipe, recipe.images, encoder
        self.datasets, self.cls_token_loss = datasets, cls_token_loss

    @property
    def needs_shown(self) -> bool:
        """For the loss on class tokens, which is over the views that show some point."""
        return self.cls_token_loss > 0

    @property
    def loss_names(self) -> tuple[str, ...]:
        """Cosine distance over points and, if used, over class tokens."""
        return ("cosine_points", "cosine_cls") if self.cls_token_loss else ("cosine_points",)

    def build(self) -> Distiller:
        """Backbone, projection heads and teacher."""
        return Distiller(
            backbone_of(self.recipe),
            point_images(self.images, self.encoder),
            datasets=self.datasets,
            summaries=self.cls_token_loss > 0,
        )

    def begin(self) -> None:
        """Do nothing."""

    def state(self) -> dict[str, Any]:
        """The weight of the class token loss, which the recipe does not hold."""
        return {"cls_token_loss": self.cls_token_loss}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing."""

    def losses(self, output: DistillationOutput, cloud: Cloud) -> dict[str, Tensor]:
        """1 - cosine over visible points, and over class tokens if used."""
        of_points = cosine_distance(output.prediction, output.target, output.visible)
        if output.image_prediction is None or output.image_target is None:
            return {"loss": of_points, "cosine_points": of_points}
        of_images = cosine_distance(output.image_prediction, output.image_target)
        loss = of_points + self.cls_token_loss * of_images
        return {"loss": loss, "cosine_points": of_points, "cosine_cls": of_images}

    def update_metrics(self, output: DistillationOutput, cloud: Cloud) -> Tensor:
        """(2,) sum of cosines over visible voxels, and their number."""
        predicted, target = output.prediction[output.visible], output.target[output.visible]
        cosine = F.cosine_similarity(predicted.float(), target.float(), dim=1).cpu().double()
        return torch.stack([cosine.sum(), torch.tensor(float(len(cosine)), dtype=torch.float64)])

    def empty_metrics(self) -> Tensor:
        """(2,) zeros."""
        return torch.zeros(2, dtype=torch.float64)

    def scores(self, total: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """The mean cosine.

        Raises:
            UserError: no voxel is visible, so that there is none.
        """
        cosine, count = total.tolist()
        if not count:
            raise UserError(
                "no point of the validation scenes is visible in an image, so there is no score to choose the best "
                "model by; the run is kept: go on with --resume when they have images (pointseg-check-cameras)"
            )
        return {"val_cosine": cosine / count}, {}

    def save(
        self, path: Path, model: Mapping[str, Tensor], training: Mapping[str, Any] | None
    ) -> None:
        """Write a student for ``pointseg-train --init``."""
        content: dict[str, Any] = {
            "format": DISTILLED,
            "recipe": self.recipe.to_json(),
            "model": {key: value.detach().cpu() for key, value in model.items()},
        }
        if training is not None:
            content["training"] = dict(training)
        write_content(path, content)

    def check(self, path: Path, content: Mapping[str, Any]) -> None:
        """Refuse a checkpoint with other datasets or another class token loss."""
        state = content.get("training", {})  # older checkpoints have another key, or none
        before = state.get("cls_token_loss", state.get("summary_loss", self.cls_token_loss))
        if before != self.cls_token_loss:
            raise UserError(
                f"--resume: {path} was distilled with --cls-token-loss {before:g}, this run has "
                f"{self.cls_token_loss:g}, so the trajectory would not be the same: give --cls-token-loss "
                f"{before:g}, or another --out"
            )
        heads = {key for key in content["model"] if key.startswith(("heads.", "summary_head."))}
        wanted = {f"heads.{k}.{name}" for k in range(self.datasets) for name in ("weight", "bias")}
        if self.cls_token_loss:
            wanted |= {"summary_head.weight", "summary_head.bias"}
        if heads != wanted:
            raise UserError(
                f"--resume: {path} was distilled on other datasets, or with other losses"
            )
