"""Training a backbone on what images show, without labels; validated by the cosine over seen voxels."""

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
from pointseg.training.checkpoint import DISTILLED, backbone_of, point_images, write_content


class Distillation:
    """See ``TrainingTask``; section 2.12 of the method's description."""

    metric_names = ("val_cosine",)
    labelled = False

    def __init__(
        self,
        recipe: Recipe,
        encoder: Encoder | None,
        *,
        datasets: int = 1,
        summary_loss: float = 0.0,
    ) -> None:
        """Say what is to be learned.

        Args:
            recipe: of the student, with the images that the teacher sees.
            encoder: the teacher's; None: clouds come with the features of their images.
            datasets: how many share the student, each with a head of its own.
            summary_loss: weight of the loss on whole images; 0: none.

        Raises:
            UserError: a recipe without images; a weight below 0.
        """
        if recipe.images is None:
            raise UserError("Distillation: the recipe must have images, which the teacher sees")
        if summary_loss < 0:
            raise UserError(f"--summary-loss must be >= 0, got {summary_loss}")
        # The teacher learns nothing, and what it does not see is left out.
        plain = ImageConfig()
        for name in ("missing_token", "view_drop", "point_drop", "pooling"):
            value = getattr(recipe.images, name)
            if value != getattr(plain, name):
                raise UserError(
                    f"images.{name} {value!r} means nothing to a teacher; leave it out when distilling"
                )
        self.recipe, self.images, self.encoder = recipe, recipe.images, encoder
        self.datasets, self.summary_loss = datasets, summary_loss

    @property
    def losses_named(self) -> tuple[str, ...]:
        """As Objective.losses_named."""
        return ("of_points", "of_images") if self.summary_loss else ("of_points",)

    def build(self) -> Distiller:
        """As Objective.build."""
        return Distiller(
            backbone_of(self.recipe),
            point_images(self.images, self.encoder),
            datasets=self.datasets,
            summaries=self.summary_loss > 0,
        )

    def begin(self) -> None:
        """Nothing."""

    def state(self) -> dict[str, Any]:
        """The loss's weights, which the recipe does not name."""
        return {"summary_loss": self.summary_loss}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing."""

    def losses(self, output: DistillationOutput, cloud: Cloud) -> dict[str, Tensor]:
        """1 - cos over seen points, and over views where these count."""
        of_points = cosine_distance(output.prediction, output.target, output.visible)
        if output.image_prediction is None or output.image_target is None:
            return {"loss": of_points, "of_points": of_points}
        of_images = cosine_distance(output.image_prediction, output.image_target)
        loss = of_points + self.summary_loss * of_images
        return {"loss": loss, "of_points": of_points, "of_images": of_images}

    def measure(self, output: DistillationOutput, cloud: Cloud) -> Tensor:
        """(2,) sum of cosines over seen voxels, and their number."""
        said, shown = output.prediction[output.visible], output.target[output.visible]
        cosine = F.cosine_similarity(said.float(), shown.float(), dim=1).cpu().double()
        return torch.stack([cosine.sum(), torch.tensor(float(len(cosine)), dtype=torch.float64)])

    def nothing(self) -> Tensor:
        """As Objective.nothing."""
        return torch.zeros(2, dtype=torch.float64)

    def scores(self, total: Tensor) -> tuple[dict[str, float], dict[str, float]]:
        """The mean cosine; -1 where nothing is seen."""
        cosine, count = total.tolist()
        return {"val_cosine": cosine / count if count else -1.0}, {}

    def save(
        self, path: Path, model: Mapping[str, Tensor], training: Mapping[str, Any] | None
    ) -> None:
        """As Objective.save: a student for ``pointseg-train --init``."""
        content: dict[str, Any] = {
            "format": DISTILLED,
            "recipe": self.recipe.to_json(),
            "model": {key: value.detach().cpu() for key, value in model.items()},
        }
        if training is not None:
            content["training"] = dict(training)
        write_content(path, content)

    def check(self, path: Path, content: Mapping[str, Any]) -> None:
        """As Objective.check."""
        # what was written before the weight was kept does not say it
        before = content.get("training", {}).get("summary_loss", self.summary_loss)
        if before != self.summary_loss:
            raise UserError(
                f"--resume: {path} was distilled with --summary-loss {before:g}, this run has "
                f"{self.summary_loss:g}; the trajectory would not be the same: give --summary-loss {before:g}, or "
                "another --out"
            )
        heads = {key for key in content["model"] if key.startswith(("heads.", "summary_head."))}
        wanted = {f"heads.{k}.{name}" for k in range(self.datasets) for name in ("weight", "bias")}
        if self.summary_loss:
            wanted |= {"summary_head.weight", "summary_head.bias"}
        if heads != wanted:
            raise UserError(
                f"--resume: {path} was distilled on other datasets, or with other losses"
            )
