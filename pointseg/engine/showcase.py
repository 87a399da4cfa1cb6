"""What a model that was just trained makes of a few scenes, as pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pointseg.datasets.dataset import Dataset
from pointseg.engine.checkpoint import load_model
from pointseg.engine.voting import Passes, Voter
from pointseg.pictures import comparison

SCENES = 2
"""Pictures of so many scenes are made."""


def show_predictions(
    checkpoint: Path, dataset: Dataset, out: Path, *, device: str = "cpu"
) -> list[Path]:
    """Colours, truth, prediction and errors of the first test scenes, one PNG each.

    Args:
        checkpoint: a trained model.
        dataset: what it was trained on.
        out: folder of the run; pictures go into ``pictures`` below it.
        device: where to predict.

    Returns:
        The files.
    """
    model, spec = load_model(checkpoint, device)
    recipe = spec.recipe
    passes = Passes(protocol=replace(recipe.test, views="single"), fast=True)
    voter = Voter(model, recipe, len(spec.classes), passes, device=device)
    split = recipe.test_splits[0]
    folder = out / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in dataset.scenes(split)[:SCENES]:
        scene = dataset.load(split, name)
        predicted = voter.name_points(scene)
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
        temporary = path.with_name(f".{path.name}")
        picture.save(temporary, format="png")
        temporary.replace(path)
        written.append(path)
    return written
