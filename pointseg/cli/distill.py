"""``pointseg-distill``: parse, build one TrainSpec, distil, draw features. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.messages.terminal_text import one_line
from pointseg.cli.arguments import add_data
from pointseg.cli.image_arguments import (
    add_camera_check,
    add_encoder,
    add_encoder_weights,
    check_cameras,
    image_features,
)
from pointseg.cli.initial_weights import (
    add_initial,
    fit_to_start,
    initial,
    open_start,
    tell_zeros,
)
from pointseg.cli.training_arguments import add_run, default_out, lock_out, model_size, run_spec

if TYPE_CHECKING:
    from pointseg.config.recipe import Recipe
    from pointseg.datasets.mixture import Mixture
    from pointseg.models.initial_file import InitialFile

NAME = "pointseg-distill"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-distill --dataset scannet --root data/scannet --encoder vit_small_patch14_dinov2"
        " --weights hub",
        description="Distils the features of a 2D foundation encoder into a 3D backbone, without labels (D-DITR). "
        "'pointseg-train --init OUT/last.pt' then needs fewer labels, and no images. "
        "Writes last.pt, best.pt, metrics.csv, curves.png and pictures of features into --out.",
    )
    add_data(parser)
    parser.add_argument(
        "--also", "--extra-dataset", action="append", default=[], metavar="NAME=DIR",
        help="a further dataset to distil on, and its folder; may be repeated. Each dataset has its own visibility "
        "rule, number of views, voxels and crops, as in pointseg-train, unless --override changes them for all; "
        "images of all are resized to the size of the first. Of structured3d all splits are learned from, and "
        "gradients are clipped to a norm of 3",
    )  # fmt: skip
    teacher = parser.add_argument_group("teacher")
    add_encoder(teacher)
    add_encoder_weights(teacher)
    add_camera_check(teacher)
    teacher.add_argument(
        "--heads", choices=("shared", "each"), default="shared",
        help="projection from student to teacher features: shared by all datasets, or one for each (default: "
        "shared)",
    )  # fmt: skip
    teacher.add_argument(
        "--cls-token-loss", type=float, default=0.0, metavar="WEIGHT",
        help="also predict the encoder's class token of each image, with this weight (default: 0)",
    )  # fmt: skip
    add_run(parser)
    add_initial(parser)
    return parser


def _data(arguments: argparse.Namespace, start: InitialFile | None) -> tuple[Recipe, Mixture]:
    """The recipe of the student, and its datasets."""
    from pointseg.config.folder_recipe import fit_to_dataset
    from pointseg.config.presets import MIXED_CLIP_NORM, images_of, recipe_for
    from pointseg.datasets import open_dataset
    from pointseg.training.run.devices import is_main_process
    from pointseg.training.tasks.distillation_datasets import describe_datasets, mix_datasets

    dataset = open_dataset(
        arguments.dataset, arguments.root, config=arguments.config, labelled=False
    )
    recipe = recipe_for(arguments.dataset, arguments.backbone, model_size(arguments))
    recipe = fit_to_dataset(recipe, dataset)
    recipe = replace(recipe, images=images_of(recipe, arguments.encoder))
    if arguments.also:
        recipe = replace(recipe, optimizer=replace(recipe.optimizer, clip_norm=MIXED_CLIP_NORM))
    recipe = fit_to_start(arguments, recipe, start, dataset.fields)
    mixture = mix_datasets(dataset, recipe, arguments.also, arguments.override)
    if arguments.also and is_main_process():
        for line in describe_datasets(mixture, recipe):
            print(one_line(line), file=sys.stderr)
    return replace(recipe, train_splits=("train",), val_splits=("val",)), mixture


def _run(arguments: argparse.Namespace) -> int:
    out = arguments.out or default_out(arguments, "distilled-")
    with lock_out(arguments, out):
        return _distill(arguments, out)


def _distill(arguments: argparse.Namespace, out: Path) -> int:
    from pointseg.evaluation.visualize_features import draw_features
    from pointseg.training.run.devices import is_main_process
    from pointseg.training.tasks.distillation import Distillation
    from pointseg.training.train import train

    start = open_start(arguments, out)
    recipe, mixture = _data(arguments, start)
    if arguments.show_recipe:
        print(recipe.to_json())
        return 0
    assert recipe.images is not None
    spec = run_spec(arguments, recipe, mixture, out)
    features = image_features(arguments, recipe.images)
    recipe = replace(recipe, images=features.config)
    task = Distillation(
        recipe,
        features.encoder,
        datasets=len(mixture.sources) if arguments.heads == "each" else 1,
        cls_token_loss=arguments.cls_token_loss,
    )
    init = initial(arguments, start, recipe)
    if is_main_process():
        tell_zeros(recipe, spec.log)
    check_cameras(arguments, mixture, recipe, spec.log)
    result = train(replace(spec, recipe=recipe, task=task, cache=features.cache, init=init))
    if not is_main_process():
        return 0
    print(f"student      {result.last} (best val_cosine {result.score:.4f})")
    print(f"curves       {out / 'curves.png'}")
    size = f" --model-size {arguments.model_size}" if arguments.model_size is not None else ""
    print(
        f"next         pointseg-train --init {result.last} --backbone {recipe.backbone}{size} ..."
    )
    for picture in draw_features(
        result.last, mixture, recipe, task, out, device=spec.device, cache=features.cache
    ):
        print(f"features     {picture}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(NAME, lambda: _run(arguments), results=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
