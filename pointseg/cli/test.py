"""``pointseg-test``: parse, build one EvaluationSpec, test, print the table. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.hub.local_model import CLOUD, local_model
from dinomed3d.hub.name import is_hub_name
from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import choose_device
from dinomed3d.runtime.messages.terminal_text import lines_of
from pointseg.cli.arguments import (
    add_data,
    add_device,
    add_inference,
    add_own_backbone,
    inference_changes,
)
from pointseg.cli.image_arguments import (
    add_encoder_weights,
    add_image_use,
    image_changes,
    model_encoder,
)
from pointseg.cli.progress import Bar, bar

if TYPE_CHECKING:
    from pointseg.evaluation.spec import EvaluationResult, EvaluationSpec

NAME = "pointseg-test"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-test -m runs/first/best.pt --dataset folder --root my_clouds",
        description="Tests a trained model: every point of every scene is predicted and scored "
        "(test_point_miou, not comparable with val_voxel_miou of training). Writes metrics.json, "
        "confusion.png and .csv, labels and pictures into --out. The same command again continues an interrupted "
        "test.",
    )
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="FILE",
        help="best.pt of pointseg-train, or hf:owner/name on the Hugging Face hub",
    )
    add_own_backbone(parser)
    add_data(parser, required=False)  # --merge needs none
    parser.add_argument(
        "-o", "--out", type=Path, metavar="DIR",
        help="folder of the results (default: 'test' next to the model, 'test-...' for corrupted scenes)",
    )  # fmt: skip
    parser.add_argument(
        "--split", action="append", metavar="NAME",
        help="split to test; may be repeated (default: those of the recipe)",
    )  # fmt: skip
    parser.add_argument(
        "--single-pass", action="store_true",
        help="predict one point per voxel without test-time augmentation, copy its label to the rest",
    )  # fmt: skip
    add_inference(parser)
    parser.add_argument(
        "--pictures", type=int, default=4, metavar="N", help="draw the first N scenes (default: 4)"
    )
    parser.add_argument(
        "--submit", type=Path, metavar="DIR", help="also write the files for the benchmark server"
    )
    parser.add_argument("--overwrite", action="store_true", help="predict all scenes again")
    parser.add_argument(
        "--merge", nargs="+", type=Path, metavar="DIR",
        help="test nothing, but merge the results of finished tests, such as the six folds of S3DIS, into --out",
    )  # fmt: skip
    images = parser.add_argument_group("images")
    add_encoder_weights(images)
    add_image_use(images)
    images.add_argument(
        "--by-visibility", nargs="?", const=Path(), type=Path, metavar="MODEL",
        help="report mIoU separately for points visible in some image and in none, also for a model that reads no "
        "images: by the recipe of MODEL, which reads images, or by that of the dataset",
    )  # fmt: skip
    _add_corruption(parser.add_argument_group("robustness test"))
    add_device(parser)
    add_json(parser)
    return parser


def _add_corruption(group: argparse._ArgumentGroup) -> None:
    for option, metavar, what in (
        ("--drop-views", "SHARE", "share of the views that are lost; 1: all"),
        ("--pixel-noise", "PX", "standard deviation of an error of the principal points, pixels"),
        ("--angle-noise", "DEG", "standard deviation of a rotation of each camera, degrees"),
    ):
        group.add_argument(option, type=float, default=0.0, metavar=metavar, help=what)
    group.add_argument("--drop-color", action="store_true", help="all points are grey")


def _spec(arguments: argparse.Namespace, progress: Bar) -> EvaluationSpec:
    from pointseg.config.precision import choose_precision
    from pointseg.datasets import open_dataset
    from pointseg.evaluation.robustness import Corruption
    from pointseg.evaluation.spec import EvaluationSpec
    from pointseg.evaluation.visibility_breakdown import VisibilitySource

    if arguments.out is None and is_hub_name(arguments.model):
        raise UserError(f"--model {arguments.model}: name a folder for the results with --out")
    device = choose_device(arguments.device)
    corruption = Corruption(
        drop_views=arguments.drop_views,
        pixel_noise=arguments.pixel_noise,
        angle_noise_deg=arguments.angle_noise,
        drop_color=arguments.drop_color,
    )
    source = None
    if arguments.by_visibility is not None:
        reading = arguments.by_visibility
        reading = None if reading == Path() else local_model(reading, CLOUD)
        source = VisibilitySource(arguments.dataset, reading)
    model = local_model(arguments.model, CLOUD)
    return EvaluationSpec(
        model=model,
        backbone=arguments.backbone,
        dataset=open_dataset(arguments.dataset, arguments.root, config=arguments.config),
        out=arguments.out or model.parent / f"test{corruption.suffix}",
        splits=None if arguments.split is None else tuple(arguments.split),
        test_changes=inference_changes(arguments),
        single_pass=arguments.single_pass,
        device=device,
        precision=choose_precision(arguments.precision, device),
        pictures=arguments.pictures,
        submit=arguments.submit,
        overwrite=arguments.overwrite,
        encoder=model_encoder(arguments),
        image_cache=arguments.image_cache,
        image_changes=image_changes(arguments),
        by_visibility=source,
        corruption=corruption,
        log=progress.say,
        progress=progress,
    )


def _run(arguments: argparse.Namespace) -> int:
    from pointseg.evaluation.cross_validation import merge_results
    from pointseg.evaluation.evaluate import evaluate

    with json_alone(arguments.json), bar() as progress:
        if arguments.merge is not None:
            if arguments.out is None:
                raise UserError("--merge: name a folder for the merged result with --out")
            out, found = (
                arguments.out,
                merge_results(arguments.merge, arguments.out, log=progress.say),
            )
        else:
            spec = _spec(arguments, progress)
            out, found = spec.out, evaluate(spec)
    if arguments.json:
        names = list(found.metrics["test_point_iou"])
        matrix = {"names": names, "matrix": found.confusion.matrix}
        results = {"results": out, "submission": arguments.submit, "pictures": found.pictures}
        print_json("pointseg-test-1", {**found.metrics, "confusion": matrix, **results})
        return 0
    _print(found, out)
    if arguments.submit is not None:
        print(f"submission   {arguments.submit}")
    return 0


def _print(found: EvaluationResult, out: Path) -> None:
    from pointseg.evaluation.point_metrics import metrics_text

    metrics = found.metrics
    print(lines_of(metrics_text(metrics, found.confusion)))
    print(f"{metrics['scenes']} scenes, {metrics['predicted_points']:,} points; results in {out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    missing = [name for name in ("--model", "--dataset") if getattr(arguments, name[2:]) is None]
    if arguments.merge is None and missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if arguments.merge is not None and len(missing) < 2:
        parser.error("--merge takes folders of finished tests, and neither --model nor --dataset")
    return run_command(
        NAME,
        lambda: _run(arguments),
        results=arguments.out,
        again="predicted scenes are kept; the same command goes on with the others",
    )


if __name__ == "__main__":
    sys.exit(main())
