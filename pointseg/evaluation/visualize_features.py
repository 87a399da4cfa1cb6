"""What a distilled backbone makes of a few scenes beside what images show, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import Recipe
from pointseg.datasets.dataset import Dataset
from pointseg.loading.samples import Samples
from pointseg.pictures.pca import Panel, write_features
from pointseg.training.checkpoint import DISTILLED, read_checkpoint
from pointseg.training.distillation_task import Distillation

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache

SCENES = 2
"""Pictures of so many scenes are made."""


def show_features(
    checkpoint: Path,
    dataset: Dataset,
    recipe: Recipe,
    objective: Distillation,
    out: Path,
    *,
    device: str = "cpu",
    cache: FeatureCache | None = None,
) -> list[Path]:
    """Principal components of what images show, what the student says, and its own features, one PNG each.

    Args:
        checkpoint: a distilled backbone.
        dataset: what it learned from.
        recipe: of the run.
        objective: likewise; its network is built anew.
        out: folder of the run; pictures go into ``pictures`` below it.
        device: where to compute.
        cache: where the features of images are, if they are not encoded.

    Returns:
        The files.

    Raises:
        UserError: a scene that cannot be read.
    """
    network = objective.build()
    network.load_state_dict(read_checkpoint(checkpoint, (DISTILLED,))["model"])
    network.to(device).eval()
    samples = Samples(dataset, recipe, training=False, seed=0, cache=cache, labelled=False)
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(min(SCENES, len(samples))):
        cloud = samples[0, index]
        if isinstance(cloud, UserError):
            raise cloud
        with torch.inference_mode():
            cloud = cloud.to(device)
            taught = network(cloud)
            own = network.backbone(cloud).feat
        split, name = samples.scenes[index]
        path = folder / f"features-{split}-{name.replace('/', '-')}.png"
        panels = [
            Panel(title="what images show", features=taught.target, seen=taught.visible),
            Panel(title="what the student says", features=taught.prediction),
            Panel(title="its own features", features=own),
        ]
        write_features(
            path, cloud.coord.cpu().numpy(), panels, cut_ceiling=recipe.setting == "indoor"
        )
        written.append(path)
    return written
