"""Pictures of the predictions of a newly trained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.datasets.dataset import Dataset
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.loading.scene_images import ImageLoader, SceneImageLoader
from pointseg.models.trained_model import EncoderSource, load_model
from pointseg.pictures import comparison

if TYPE_CHECKING:
    from pointseg.images.features.feature_cache import FeatureCache

SCENES = 2
"""Number of scenes that are drawn."""


def draw_predictions(
    checkpoint: Path,
    dataset: Dataset,
    out: Path,
    *,
    device: str = "cpu",
    encoder: EncoderSource | None = None,
    cache: FeatureCache | None = None,
    backbone: str | None = None,
) -> list[Path]:
    """Colours, labels, prediction and errors of the first test scenes, one PNG each.

    Args:
        checkpoint: a trained model.
        dataset: it was trained on.
        out: folder of the run; pictures go into ``pictures`` below it.
        device: where to predict.
        encoder: opens the image encoder, for models that read images.
        cache: cached image features, instead of the encoder.
        backbone: as for ``load_model``.

    Returns:
        The files.
    """
    model, spec = load_model(checkpoint, device, encoder=encoder, backbone=backbone)
    recipe = spec.recipe
    protocol = InferenceProtocol(config=recipe.test, single_pass=True)
    predictor = ScenePredictor(model, recipe, len(spec.classes), protocol, device=device)
    loader = None
    if recipe.images is not None:
        loader = SceneImageLoader(dataset, ImageLoader(recipe.images, cache))
    split = recipe.test_splits[0]
    folder = out / "pictures"
    written = []
    for name in dataset.scenes(split)[:SCENES]:
        scene, images = dataset.load(split, name), None
        if loader is not None:
            scene, images = loader.load(split, name, scene)
        predicted = predictor.predict_labels(scene, images=images)
        truth = scene.fields.get("segment", predicted)
        picture = comparison(
            scene.coord,
            truth,
            predicted,
            spec.classes.names,
            spec.classes.colors,
            photo=scene.fields.get("color"),
            cut_ceiling=recipe.is_indoor,
        )
        path = folder / f"{split}-{name.replace('/', '-')}.png"
        with new_file(path) as part:
            picture.save(part, format="PNG")
        written.append(path)
    return written
