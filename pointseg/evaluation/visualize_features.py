"""Pictures of the features of a distilled backbone next to the image features it learned from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import Recipe
from pointseg.datasets.dataset import Dataset
from pointseg.loading.samples import Samples
from pointseg.models.checkpoint import DISTILLED, read_checkpoint
from pointseg.pictures.pca import Panel, write_features
from pointseg.training.tasks.distillation import Distillation

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache

SCENES = 2
"""Number of scenes that are drawn."""


def draw_features(
    checkpoint: Path,
    dataset: Dataset,
    recipe: Recipe,
    task: Distillation,
    out: Path,
    *,
    device: str = "cpu",
    cache: FeatureCache | None = None,
) -> list[Path]:
    """Principal components of image features, of the student's prediction and of its own features, one PNG per scene.

    Args:
        checkpoint: a distilled backbone.
        dataset: it was distilled on.
        recipe: of the run.
        task: of the run; its network is built again.
        out: folder of the run; pictures go into ``pictures`` below it.
        device: where to compute.
        cache: cached image features, if images are not encoded.

    Returns:
        The files.

    Raises:
        UserError: a scene that cannot be read.
    """
    network = task.build()
    network.load_state_dict(read_checkpoint(checkpoint, (DISTILLED,))["model"])
    network.to(device).eval()
    samples = Samples(
        dataset,
        recipe,
        training=False,
        seed=0,
        cache=cache,
        labelled=False,
        keep_shown=task.needs_shown,
    )
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(min(SCENES, len(samples))):
        cloud = samples[0, index]
        if isinstance(cloud, UserError):
            raise cloud
        with torch.inference_mode():
            cloud = cloud.to(device)
            output = network(cloud)
            own = network.backbone(cloud).feat
        split, name = samples.scenes[index]
        path = folder / f"features-{split}-{name.replace('/', '-')}.png"
        panels = [
            Panel(title="image features", features=output.target, seen=output.visible),
            Panel(title="predicted by the student", features=output.prediction),
            Panel(title="features of the student", features=own),
        ]
        write_features(path, cloud.coord.cpu().numpy(), panels, cut_ceiling=recipe.is_indoor)
        written.append(path)
    return written
