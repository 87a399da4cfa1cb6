"""What a model that was just trained makes of a few scenes, as pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.atomic_files import new_file
from pointseg.datasets.dataset import Dataset
from pointseg.evaluation.tta import InferenceProtocol, TestTimePredictor
from pointseg.loading.scene_images import SceneImageLoader, Showing
from pointseg.pictures import comparison
from pointseg.training.checkpoint import EncoderSource, load_model

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache

SCENES = 2
"""Pictures of so many scenes are made."""


def show_predictions(
    checkpoint: Path,
    dataset: Dataset,
    out: Path,
    *,
    device: str = "cpu",
    encoder: EncoderSource | None = None,
    cache: FeatureCache | None = None,
) -> list[Path]:
    """Colours, truth, prediction and errors of the first test scenes, one PNG each.

    Args:
        checkpoint: a trained model.
        dataset: what it was trained on.
        out: folder of the run; pictures go into ``pictures`` below it.
        device: where to predict.
        encoder: opens the image encoder, for models that read images.
        cache: instead of it, where the features of images are.

    Returns:
        The files.
    """
    model, spec = load_model(checkpoint, device, encoder=encoder)
    recipe = spec.recipe
    passes = InferenceProtocol(protocol=replace(recipe.test, views="single"), fast=True)
    voter = TestTimePredictor(model, recipe, len(spec.classes), passes, device=device)
    imagery = (
        None if recipe.images is None else SceneImageLoader(dataset, Showing(recipe.images, cache))
    )
    split = recipe.test_splits[0]
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in dataset.scenes(split)[:SCENES]:
        scene, views = dataset.load(split, name), None
        if imagery is not None:
            scene, views = imagery.attach(split, name, scene)
        predicted = voter.predict_labels(scene, views=views)
        truth = scene.fields.get("segment", predicted)
        picture = comparison(
            scene.coord,
            truth,
            predicted,
            spec.classes.names,
            spec.classes.colors,
            photo=scene.fields.get("color"),
            cut_ceiling=recipe.setting == "indoor",
        )
        path = folder / f"{split}-{name.replace('/', '-')}.png"
        with new_file(path) as part:
            picture.save(part, format="png")
        written.append(path)
    return written
