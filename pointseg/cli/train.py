"""``pointseg-train``: parse, make one TrainSpec, train, show a prediction. Heavy imports come late."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.device import DEVICES, choose_device
from pointseg.cli.command import BACKBONES, add_data, at_least, run_command
from pointseg.cli.images import add_images, model_encoder, seen_by

if TYPE_CHECKING:
    from pointseg.config.recipe import Recipe
    from pointseg.datasets.dataset import Dataset
    from pointseg.datasets.folder.description import Description
    from pointseg.training.train import TrainSpec

NAME = "pointseg-train"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Trains a 3D backbone to name the points of clouds. 'synthetic' needs no data. "
        "Writes last.pt, best.pt, metrics.csv, curves.png, pictures and TensorBoard's files into --out. "
        "Several devices: torchrun --nproc-per-node N -m pointseg.cli.train ..., or --devices N.",
    )
    add_data(parser)
    add_images(parser)
    begin = add_run(parser)
    begin.add_argument(
        "--init", type=Path, metavar="FILE",
        help="start from these weights: of pointseg-train or pointseg-distill, or a backbone in "
        "Pointcept's format",
    )  # fmt: skip
    parser.add_argument(
        "--class-weights", choices=("none", "auto", "sqrt"), help="against rare classes"
    )
    return parser


def add_run(parser: argparse.ArgumentParser) -> Any:
    """Options of a run, whatever it learns; returns the group of how it begins."""
    parser.add_argument("--backbone", default="ptv3", choices=BACKBONES, help="(default: ptv3)")
    parser.add_argument(
        "--size", choices=("small", "full"),
        help="of the backbone (default: small for synthetic, else full)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="(default: runs/DATASET-BACKBONE)")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on from last.pt in --out")
    begin.add_argument(
        "--overwrite", action="store_true", help="begin anew although --out holds a run"
    )
    parser.add_argument(
        "--override", action="append", default=[], metavar="KEY=VALUE",
        help="change the recipe, such as epochs=100 or optimizer.lr=0.001 (see --show-recipe)",
    )  # fmt: skip
    parser.add_argument("--show-recipe", action="store_true", help="print the recipe and stop")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    parser.add_argument(
        "--devices", type=at_least(1), default=1, metavar="N", help="GPUs (default: 1)"
    )
    parser.add_argument(
        "--precision", choices=("auto", "float32", "float16", "bfloat16"), default="auto",
        help="auto: float16 mixed on CUDA, else float32 (default: auto)",
    )  # fmt: skip
    parser.add_argument(
        "--parts", type=at_least(1), default=1, metavar="N",
        help="cut a batch into N parts and accumulate gradients, for less memory (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--workers",
        type=at_least(0),
        metavar="N",
        help="processes that load data (default: by cores)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="(default: 0)")
    return begin


def _run(arguments: argparse.Namespace) -> int:
    from dinomed3d.runtime.errors import UserError
    from pointseg.config.presets import images_of, recipe_for
    from pointseg.config.recipe import override

    size = arguments.size or ("small" if arguments.dataset == "synthetic" else "full")
    recipe = recipe_for(arguments.dataset, arguments.backbone, size)
    dataset = None
    if arguments.dataset == "folder" or not arguments.show_recipe:
        dataset = _open(arguments)
        recipe = fitted(recipe, dataset)
    if arguments.class_weights:
        recipe = replace(recipe, class_weights=arguments.class_weights)
    if arguments.images:
        recipe = replace(recipe, images=images_of(recipe, arguments.encoder))
    elif arguments.weights or arguments.image_cache:
        raise UserError("--weights and --image-cache are for --images; add that, or leave them out")
    recipe = override(recipe, arguments.override)
    if dataset is None or arguments.show_recipe:
        print(recipe.to_json())
        return 0
    if _guesses_strength(recipe) and is_main():
        print(
            f"{NAME}: the scale of the intensities is guessed file by file; say it with 'strength_max' in "
            "dataset.yaml, so that all files, and those that are predicted later, are read alike",
            file=sys.stderr,
        )
    return _train(_spec(arguments, recipe, dataset), arguments)


def _open(arguments: argparse.Namespace) -> Dataset:
    from pointseg.datasets import open_dataset

    return open_dataset(arguments.dataset, arguments.root, config=arguments.config)


def fitted(recipe: Recipe, dataset: Dataset) -> Recipe:
    """A recipe with what only the data knows: of a person's own clouds features, voxels, unit and axis."""
    if recipe.dataset != "folder":
        return recipe
    from pointseg.config.recipe import Form
    from pointseg.datasets.folder.dataset import Folder

    assert isinstance(dataset, Folder)
    known = [name for name in ("color", "normal", "strength") if name in dataset.fields]
    tests = ("test",) if "test" in dataset.splits() else recipe.val_splits
    features = tuple(known) or ("coord",)
    told = dataset.description
    finer = (
        dataset.voxel_m / recipe.voxel_m
    )  # what is varied is as large beside a voxel as in rooms
    varied = recipe.augmentation
    augmentation = replace(
        varied,
        jitter_m=varied.jitter_m * finer,
        jitter_clip_m=varied.jitter_clip_m * finer,
        elastic=tuple((cell * finer, size * finer) for cell, size in varied.elastic),
    )
    return replace(
        recipe,
        features=features,
        voxel_m=dataset.voxel_m,
        augmentation=augmentation,
        test=replace(recipe.test, margin_m=recipe.test.margin_m * finer),
        test_splits=tests,
        form=Form(
            unit_m=told.unit_m, up=told.up, strength_max=told.strength_max, columns=_columns(told)
        ),
    )


def _columns(told: Description) -> tuple[str, ...] | None:
    """Of text without names; the labels', which other clouds may lack, under a name that says so."""
    if told.columns is None or told.label is None or "label" in told.columns:
        return told.columns
    return tuple("label" if name == told.label else name for name in told.columns)


def _guesses_strength(recipe: Recipe) -> bool:
    """Whether intensities are read by a guess of their scale, which may differ from file to file."""
    is_guessed = recipe.dataset == "folder" and recipe.form.strength_max is None
    return is_guessed and "strength" in recipe.features


def _spec(arguments: argparse.Namespace, recipe: Recipe, dataset: Dataset) -> TrainSpec:
    from pointseg.training.pretrained import initial_weights
    from pointseg.training.segmentation_task import Segmentation

    out = arguments.out or Path("runs") / f"{arguments.dataset}-{arguments.backbone}"
    start = None
    spec = run_spec(arguments, recipe, dataset, out)
    encoder, cache = None, None
    if recipe.images is not None:
        encoder, cache, images = seen_by(recipe.images, arguments)
        recipe = replace(recipe, images=images)
    if arguments.init is not None:
        start = initial_weights(arguments.init, dataset.classes.names, recipe)
    objective = Segmentation(dataset, recipe, encoder)
    return replace(spec, recipe=recipe, objective=objective, cache=cache, init=start)


def run_spec(
    arguments: argparse.Namespace, recipe: Recipe, dataset: Dataset, out: Path
) -> TrainSpec:
    """A run by the options of ``add_run``.

    Raises:
        UserError: the folder holds a run, or none; a precision that the device has not.
    """
    from dinomed3d.runtime.errors import UserError
    from pointseg.training.run_dir import LAST, REPLACED
    from pointseg.training.train import TrainSpec

    held = (out / LAST).exists()
    if arguments.resume and not held:
        before = out / REPLACED
        hint = f", or move the run in {before} back" if before.is_dir() else ""
        raise UserError(
            f"--resume: {out / LAST} does not exist; leave --resume out to begin a run{hint}"
        )
    if held and not (arguments.resume or arguments.overwrite):
        raise UserError(f"--out {out}: holds a run; add --resume to go on with it, or --overwrite")
    device = choose_device(arguments.device)
    world, local = (int(os.environ.get(k, 0)) for k in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    cores = os.cpu_count() or 1
    automatic = "float16" if device == "cuda" else "float32"
    precision = automatic if arguments.precision == "auto" else arguments.precision
    names = {"float32": "32-true", "float16": "16-mixed", "bfloat16": "bf16-mixed"}
    if precision == "float16" and device == "cpu":
        raise UserError("--precision float16: a CPU trains in float32 or bfloat16")
    return TrainSpec(
        dataset=dataset,
        recipe=recipe,
        out=out,
        resume=arguments.resume,
        accelerator=device,
        devices=local or arguments.devices,
        nodes=world // local if local else 1,
        precision=names[precision],
        parts=arguments.parts,
        workers=min(8, cores - 1) if arguments.workers is None else arguments.workers,
        seed=arguments.seed,
        log=lambda text: print(text, file=sys.stderr),
    )


def is_main() -> bool:
    """Whether this process reports, of those that torchrun started."""
    return not int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def _train(spec: TrainSpec, arguments: argparse.Namespace) -> int:
    from dinomed3d.runtime.errors import UserError
    from pointseg.evaluation.visualize_predictions import show_predictions
    from pointseg.training.train import train

    result = train(spec)
    if not is_main():
        return 0  # the main process alone reports
    print(f"best model   {result.best} (val_voxel_miou {result.score:.4f})")
    print(f"curves       {spec.out / 'curves.png'}")
    try:
        pictures = show_predictions(
            result.best,
            spec.dataset,
            spec.out,
            device=spec.accelerator,
            encoder=model_encoder(arguments),
            cache=spec.cache,
        )
    except UserError as error:  # of a test scene, which takes nothing from the model
        spec.log(f"no pictures of predictions: {error}")
        return 0
    for picture in pictures:
        print(f"prediction   {picture}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(NAME, lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
