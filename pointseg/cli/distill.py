"""``pointseg-distill``: parse, make one TrainSpec, distil, show features. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pointseg.cli.command import add_data, run_command
from pointseg.cli.images import add_encoder, add_encoder_weights, seen_by
from pointseg.cli.train import add_run, fitted, is_main, run_spec
from pointseg.datasets.conventions import DATASETS

if TYPE_CHECKING:
    from pointseg.config.recipe import Recipe
    from pointseg.datasets.mixture import Mixture, SourceDataset

NAME = "pointseg-distill"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Teaches a 3D backbone, without labels, what a 2D foundation encoder sees in the images "
        "of a dataset (D-DITR). 'pointseg-train --init OUT/last.pt' then needs fewer labels, and no image. "
        "Writes last.pt, best.pt, metrics.csv, curves.png and pictures of features into --out.",
    )
    add_data(parser)
    parser.add_argument(
        "--also", action="append", default=[], metavar="NAME=DIR",
        help="another dataset to learn from, and its folder; may be repeated. Each is seen by its own rule, as "
        "near, as far, in as many views as pointseg-train sees it, unless --override images... says otherwise; "
        "images of all have the size of the first",
    )  # fmt: skip
    teacher = parser.add_argument_group("the teacher")
    add_encoder(teacher)
    add_encoder_weights(teacher)
    teacher.add_argument(
        "--heads", choices=("shared", "each"), default="shared",
        help="from the student to the teacher: one for all datasets, or one for each (default: shared)",
    )  # fmt: skip
    teacher.add_argument(
        "--summary-loss", type=float, default=0.0, metavar="WEIGHT",
        help="also learn the encoder's class token of each image (default: 0, not)",
    )  # fmt: skip
    add_run(parser)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from pointseg.config.presets import images_of, recipe_for
    from pointseg.config.recipe import override
    from pointseg.datasets import open_dataset
    from pointseg.datasets.mixture import Mixture, SourceDataset

    recipe = recipe_for(arguments.dataset, arguments.backbone, arguments.size or "full")
    dataset = open_dataset(
        arguments.dataset, arguments.root, config=arguments.config, labelled=False
    )
    recipe = fitted(recipe, dataset)
    images = images_of(recipe, arguments.encoder)
    recipe = override(replace(recipe, images=images), arguments.override)
    parts = [SourceDataset(dataset, recipe.train_splits, recipe.val_splits)]
    parts += [_other(text, arguments) for text in arguments.also]
    mixture = Mixture(parts)
    if arguments.also and is_main():
        _say_rules(parts, recipe)
    recipe = replace(recipe, train_splits=("train",), val_splits=("val",))
    if arguments.show_recipe:
        print(recipe.to_json())
        return 0
    return _distil(arguments, recipe, mixture)


def _other(text: str, arguments: argparse.Namespace) -> SourceDataset:
    from dinomed3d.runtime.errors import UserError
    from pointseg.config.presets import images_of, recipe_for
    from pointseg.config.recipe import override
    from pointseg.datasets import open_dataset
    from pointseg.datasets.mixture import SourceDataset

    name, equals, folder = text.partition("=")
    if not equals or name not in DATASETS:
        raise UserError(f"--also {text}: must be NAME=DIR with NAME of {', '.join(DATASETS)}")
    recipe = recipe_for(name, arguments.backbone, arguments.size or "full")
    dataset = open_dataset(name, Path(folder), labelled=False)
    images = images_of(fitted(recipe, dataset), arguments.encoder)
    asked = [change for change in arguments.override if change.startswith("images.")]
    seen = override(replace(recipe, images=images), asked).images
    return SourceDataset(dataset, recipe.train_splits, recipe.val_splits, seen)


def _say_rules(parts: Sequence[SourceDataset], recipe: Recipe) -> None:
    """What the datasets have in common of how they are seen, and what not."""
    first, images = parts[0].dataset.name, recipe.images
    assert images is not None
    height, width = images.size
    print(
        f"the images of all datasets are resized to {height} x {width} pixels, as of {first} "
        "(--override images.size=[H,W] for another size); beside that each is seen by its own rule:",
        file=sys.stderr,
    )
    for part in parts:
        rule = images if part.images is None else images.with_visibility_of(part.images)
        print(f"{part.dataset.name}: {rule.viewing_in_words()}", file=sys.stderr)


def _distil(arguments: argparse.Namespace, recipe: Recipe, dataset: Mixture) -> int:
    from pointseg.evaluation.visualize_features import show_features
    from pointseg.training.distillation_task import Distillation
    from pointseg.training.train import train

    assert recipe.images is not None
    out = arguments.out or Path("runs") / f"distilled-{arguments.dataset}-{arguments.backbone}"
    spec = run_spec(arguments, recipe, dataset, out)
    encoder, cache, images = seen_by(recipe.images, arguments)
    recipe = replace(recipe, images=images)
    datasets = len(dataset.sources) if arguments.heads == "each" else 1
    objective = Distillation(
        recipe, encoder, datasets=datasets, summary_loss=arguments.summary_loss
    )
    result = train(replace(spec, recipe=recipe, objective=objective, cache=cache))
    if not is_main():
        return 0  # the main process alone reports
    print(f"student      {result.last} (val_cosine {result.score:.4f} at its best)")
    print(f"curves       {out / 'curves.png'}")
    print(f"go on with   pointseg-train --init {result.last} ...")
    for picture in show_features(
        result.last, dataset, recipe, objective, out, device=spec.accelerator, cache=cache
    ):
        print(f"features     {picture}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(NAME, lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
