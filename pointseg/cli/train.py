"""``pointseg-train``: parse, build one TrainSpec, train, draw predictions. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.errors import UserError
from pointseg.cli.arguments import add_data
from pointseg.cli.image_arguments import (
    add_camera_check,
    add_encoder,
    add_encoder_weights,
    check_cameras,
    image_features,
    model_encoder,
)
from pointseg.cli.initial_weights import (
    add_initial,
    fit_to_start,
    initial,
    open_start,
    tell_zeros,
)
from pointseg.cli.training_arguments import add_run, default_out, lock_out, model_size, run_spec
from pointseg.conventions import TUNES
from pointseg.plugins import is_plugin

if TYPE_CHECKING:
    from pointseg.config.recipe import Recipe
    from pointseg.datasets.dataset import Dataset
    from pointseg.models.initial_file import InitialFile
    from pointseg.training.run.spec import TrainSpec

NAME = "pointseg-train"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-train --dataset folder --root my_clouds --out runs/first",
        description="Trains a 3D backbone for semantic segmentation. The dataset 'synthetic' needs no data. "
        "Writes last.pt, best.pt, metrics.csv, curves.png, pictures and TensorBoard files into --out. "
        "Several devices: torchrun --nproc-per-node N -m pointseg.cli.train ..., or --devices N.",
    )
    add_data(parser)
    images = parser.add_argument_group("images (DITR)")
    images.add_argument(
        "--images", action="store_true", help="add features of the dataset's images to the points"
    )
    add_encoder(images)
    add_encoder_weights(images)
    add_camera_check(images)
    add_run(parser)
    add_initial(parser)
    parser.add_argument(
        "--tune", choices=TUNES, default="all",
        help="what is trained: a linear head on the features as they are; a new decoder on the encoder as it is; or "
        "all of it (default: all)",
    )  # fmt: skip
    parser.add_argument(
        "--class-weights", choices=("none", "auto", "sqrt"),
        help="weight rare classes more (default: that of the recipe)",
    )  # fmt: skip
    return parser


def _recipe(
    arguments: argparse.Namespace, start: InitialFile | None
) -> tuple[Recipe, Dataset | None]:
    """The recipe, and the dataset if it was needed for that or will be trained on."""
    from pointseg.config.folder_recipe import fit_to_dataset
    from pointseg.config.presets import images_of, recipe_for
    from pointseg.datasets import open_dataset

    size = model_size(arguments)
    recipe = recipe_for(arguments.dataset, arguments.backbone, size, arguments.tune)
    dataset = None
    needed = arguments.dataset == "folder" or is_plugin(arguments.dataset)
    if needed or not arguments.show_recipe:
        dataset = open_dataset(arguments.dataset, arguments.root, config=arguments.config)
        recipe = fit_to_dataset(recipe, dataset)
    if arguments.class_weights:
        recipe = replace(recipe, class_weights=arguments.class_weights)
    if arguments.images:
        recipe = replace(recipe, images=images_of(recipe, arguments.encoder))
    elif arguments.weights or arguments.image_cache:
        raise UserError("--weights, --image-cache: are for --images; add it, or leave them out")
    fields = None if dataset is None else dataset.fields
    return fit_to_start(arguments, recipe, start, fields), dataset


def _spec(
    arguments: argparse.Namespace, recipe: Recipe, dataset: Dataset, start: InitialFile | None
) -> TrainSpec:
    from pointseg.training.tasks.segmentation import Segmentation

    spec, encoder = run_spec(arguments, recipe, dataset, _out(arguments)), None
    if recipe.images is not None:
        features = image_features(arguments, recipe.images)
        recipe, encoder = replace(recipe, images=features.config), features.encoder
        spec = replace(spec, recipe=recipe, cache=features.cache)
    init = initial(arguments, start, recipe, dataset.classes.names)
    return replace(spec, task=Segmentation(dataset, recipe, encoder), init=init)


def _out(arguments: argparse.Namespace) -> Path:
    return arguments.out or default_out(arguments)


def _run(arguments: argparse.Namespace) -> int:
    with lock_out(arguments, _out(arguments)):
        return _train(arguments)


def _train(arguments: argparse.Namespace) -> int:
    from pointseg.config.folder_recipe import guesses_intensity_scale
    from pointseg.datasets.folder.dataset import folder_notes
    from pointseg.evaluation.visualize_predictions import draw_predictions
    from pointseg.training.run.devices import is_main_process
    from pointseg.training.train import train

    start = open_start(arguments, _out(arguments))
    recipe, dataset = _recipe(arguments, start)
    if dataset is None or arguments.show_recipe:
        print(recipe.to_json())
        return 0
    if guesses_intensity_scale(recipe) and is_main_process():
        print(
            f"{NAME}: the scale of intensities is guessed for each file; state it with 'intensity_max' in "
            "dataset.yaml, so that all files, also those predicted later, are read alike",
            file=sys.stderr,
        )
    if is_main_process():
        for note in folder_notes(dataset):
            print(f"{NAME}: {note}", file=sys.stderr)
    spec = _spec(arguments, recipe, dataset, start)
    if is_main_process():
        tell_zeros(recipe, spec.log)
    check_cameras(arguments, dataset, spec.recipe, spec.log)
    result = train(spec)
    if not is_main_process():
        return 0
    print(f"best model   {result.best} (val_voxel_miou {result.score:.4f})")
    print(f"curves       {spec.out / 'curves.png'}")
    try:
        encoder = model_encoder(arguments)
        for picture in draw_predictions(
            result.best,
            dataset,
            spec.out,
            device=spec.device,
            encoder=encoder,
            cache=spec.cache,
            backbone=spec.recipe.backbone,
        ):
            print(f"prediction   {picture}")
    except UserError as error:  # of a test scene: the model is trained nevertheless
        spec.log(f"no pictures of predictions: {error}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(NAME, lambda: _run(arguments), results=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
