"""``pointseg-test``: parse, make one ScoreSpec, test, print the table. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinomed3d.runtime.device import DEVICES, choose_device
from pointseg.cli.command import add_data, run_command
from pointseg.cli.images import (
    DEFAULT,
    add_encoder_weights,
    add_seeing,
    model_encoder,
    seeing_changes,
)
from pointseg.cli.progress import Bar, bar
from pointseg.cli.train import fitted

if TYPE_CHECKING:
    from pointseg.config.recipe import Protocol
    from pointseg.datasets.dataset import Dataset
    from pointseg.evaluation.evaluate import Score
    from pointseg.images.config import ImageConfig

NAME = "pointseg-test"
OF_DATASET = ""
"""Of --by-sight: no model is named."""
VIEWS = ("single", "scannet", "s3dis", "nuscenes", "semantickitti")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Tests a trained model: every point of every scene is predicted and counted "
        "(test_point_miou, not to be compared with training's val_voxel_miou). Writes metrics.json, "
        "confusion.png and .csv, labels and pictures into --out. The same command again goes on where "
        "it was stopped.",
    )
    parser.add_argument(
        "-m", "--model", type=Path, metavar="FILE", help="best.pt of pointseg-train"
    )
    add_data(parser, required=False)  # --sum needs none
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        help="(default: 'test' beside the model, 'test-...' for scenes made worse)",
    )
    parser.add_argument(
        "--split", action="append", metavar="NAME", help="may be repeated (default: the recipe's)"
    )
    parser.add_argument(
        "--fast", action="store_true",
        help="one pass: one view, one point of each voxel, which names the others",
    )  # fmt: skip
    add_protocol(parser)
    parser.add_argument(
        "--pictures", type=int, default=4, metavar="N", help="draw the first N scenes (default: 4)"
    )
    parser.add_argument(
        "--submit", type=Path, metavar="DIR", help="also write the files that the benchmark takes"
    )
    parser.add_argument("--overwrite", action="store_true", help="predict all scenes again")
    parser.add_argument(
        "--sum", nargs="+", type=Path, metavar="DIR",
        help="test nothing, but add the counts of finished tests, such as those of the six folds of "
        "S3DIS, and report them as one test in --out",
    )  # fmt: skip
    seeing = parser.add_argument_group("images")
    add_encoder_weights(seeing)
    add_seeing(seeing)
    seeing.add_argument(
        "--by-sight", nargs="?", const=OF_DATASET, metavar="FILE",
        help="score seen and unseen points apart for a model that reads no images, too: as the images of the "
        "model FILE show points, to compare with it, or as the recipe of the dataset says",
    )  # fmt: skip
    add_degradation(parser)
    add_machine(parser)
    return parser


def add_degradation(parser: argparse.ArgumentParser) -> None:
    """Options that make scenes worse on purpose."""
    group = parser.add_argument_group("what may go wrong, done on purpose")
    group.add_argument(
        "--drop-views",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="so many views are lost; 1: all",
    )
    group.add_argument(
        "--pixel-noise", type=float, default=0.0, metavar="PX",
        help="cameras' principal points are off by so much (standard deviation)",
    )  # fmt: skip
    group.add_argument(
        "--angle-noise", type=float, default=0.0, metavar="DEG",
        help="cameras are turned by so much about each axis (standard deviation)",
    )  # fmt: skip
    group.add_argument("--drop-color", action="store_true", help="all points are grey")


def add_protocol(parser: Any, *, views: str = "") -> None:
    """Options that change how a scene is predicted, for a parser or a group of options.

    Args:
        parser: gets the options.
        views: what else is to be said of the views.
    """
    parser.add_argument(
        "--views",
        choices=VIEWS,
        help=f"which set of views is summed{views} (default: the recipe's)",
    )
    parser.add_argument(
        "--max-points", type=int, metavar="N",
        help="voxels at once; larger clouds are cut into tiles (default: the recipe's)",
    )  # fmt: skip
    parser.add_argument(
        "--margin",
        type=float,
        metavar="M",
        help="how far tiles overlap, metres (default: the recipe's)",
    )


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Options that say where the network runs."""
    parser.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    parser.add_argument(
        "--precision", choices=("auto", "float32", "float16", "bfloat16"), default="auto",
        help="auto: float16 on CUDA, else float32 (default: auto)",
    )  # fmt: skip


def protocol_changes(arguments: argparse.Namespace) -> Callable[[Protocol], Protocol]:
    """What the options change of a recipe's protocol."""
    given = {
        "views": arguments.views, "max_points": arguments.max_points, "margin_m": arguments.margin,
    }  # fmt: skip
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return lambda protocol: replace(protocol, **changes)


def choose_precision(name: str, device: str) -> str:
    """auto, float32, float16 or bfloat16 -> one of the last three.

    Raises:
        UserError: float16 on a CPU.
    """
    from dinomed3d.runtime.errors import UserError

    if name == "auto":
        return "float16" if device == "cuda" else "float32"
    if name == "float16" and device == "cpu":
        raise UserError("--precision float16: a CPU predicts in float32 or bfloat16")
    return name


def _sum(arguments: argparse.Namespace, shown: Bar) -> int:
    from dinomed3d.runtime.errors import UserError
    from pointseg.evaluation.cross_validation import merge_results

    if arguments.out is None:
        raise UserError("--sum: name a folder for the report of all folds with --out")
    _report(merge_results(arguments.sum, arguments.out, log=shown.say), arguments.out)
    return 0


def _run(arguments: argparse.Namespace, shown: Bar) -> int:
    from dinomed3d.runtime.errors import UserError
    from pointseg.datasets import open_dataset
    from pointseg.evaluation.evaluate import ScoreSpec, score
    from pointseg.evaluation.robustness import Degradation

    _check_options(arguments)
    device = choose_device(arguments.device)
    dataset = open_dataset(arguments.dataset, arguments.root, config=arguments.config)
    degradation = Degradation(
        drop_views=arguments.drop_views,
        pixel_noise=arguments.pixel_noise,
        angle_noise_deg=arguments.angle_noise,
        drop_color=arguments.drop_color,
    )
    out = arguments.out or arguments.model.parent / f"test{degradation.suffix}"
    if arguments.submit is not None and degradation.suffix:
        raise UserError("--submit: results on scenes made worse on purpose are none to hand in")
    found = score(
        ScoreSpec(
            model=arguments.model,
            dataset=dataset,
            out=out,
            splits=None if arguments.split is None else tuple(arguments.split),
            protocol=protocol_changes(arguments),
            fast=arguments.fast,
            device=device,
            precision=choose_precision(arguments.precision, device),
            pictures=arguments.pictures,
            submit=arguments.submit,
            overwrite=arguments.overwrite,
            encoder=model_encoder(arguments),
            seeing=seeing_changes(arguments),
            sight=_sight(arguments, dataset),
            image_cache=arguments.image_cache,
            degradation=degradation,
            log=shown.say,
            progress=shown,
        )
    )
    shown.close()
    _report(found, out)
    if arguments.submit is not None:
        print(f"submission   {arguments.submit}")
    return 0


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options of images that would do nothing.

    Raises:
        UserError: there are some.
    """
    from dinomed3d.runtime.errors import UserError

    if arguments.weights is not None and arguments.image_cache is not None:
        raise UserError(
            "--weights and --image-cache: features are either made of the images or read; give one of them"
        )
    given = {
        "--weights": arguments.weights is not None,
        "--image-cache": arguments.image_cache is not None,
        "--image-views": arguments.image_views is not None,
        "--allow-unseen": arguments.allow_unseen,
    }
    like = arguments.by_sight  # None, OF_DATASET or a file
    if not (any(given.values()) or like):
        return
    if _images_of(arguments.model) is not None:
        if like:
            raise UserError(
                f"--by-sight {like}: the model {arguments.model} reads images, and its own tell which points "
                f"are seen; leave {like} out"
            )
        return
    useful = set() if like is None else {"--image-views"} | ({"--image-cache"} if like else set())
    needless = [name for name, is_given in given.items() if is_given and name not in useful]
    if needless:
        hint = "; to score seen and unseen points apart, add --by-sight" if like is None else ""
        if like == OF_DATASET and "--image-cache" in needless:
            hint = "; --image-cache goes with --by-sight FILE, whose features it holds"
        raise UserError(
            f"model {arguments.model}: reads no images, so {', '.join(needless)} would do nothing; leave "
            f"{'it' if len(needless) == 1 else 'them'} out{hint}"
        )


def _sight(arguments: argparse.Namespace, dataset: Dataset) -> ImageConfig | None:
    """By which rule seen and unseen points are told apart, if that is asked for."""
    from dinomed3d.runtime.errors import UserError
    from pointseg.config.presets import RECIPES, images_of

    if arguments.by_sight is None:
        return None
    if arguments.by_sight == OF_DATASET:
        images = images_of(fitted(RECIPES[arguments.dataset], dataset), DEFAULT)
    else:
        found = _images_of(Path(arguments.by_sight))
        if found is None:
            raise UserError(
                f"--by-sight {arguments.by_sight}: must be a model that reads images, and this one reads none; "
                f"name another, or none to see by the recipe of {arguments.dataset}"
            )
        images = found
    return seeing_changes(arguments)(images)


def _images_of(model: Path) -> ImageConfig | None:
    """How images take part in a trained model."""
    from dinomed3d.runtime.errors import UserError
    from pointseg.config.recipe import read_recipe
    from pointseg.training.checkpoint import read_checkpoint

    content = read_checkpoint(model)
    try:
        return read_recipe(content["recipe"]).images
    except UserError as error:
        raise UserError(f"checkpoint {model}: {error}") from error


def _report(found: Score, out: Path) -> None:
    metrics = found.metrics
    if metrics["labelled_points"]:
        print(found.confusion.table(list(metrics["test_point_iou"])))
        for name, means in metrics["test_point_miou_by_group"].items():
            print(f"{name}: {100 * means['absent_as_0']:.2f}, absent classes as 0")
        print(f"test_point_miou {metrics['test_point_miou']:.4f}  (absent classes as 0)")
        print(f"test_point_miou_present {metrics['test_point_miou_present']:.4f}  (without them)")
        for name, part in metrics.get("test_point_miou_by_sight", {}).items():
            if part["miou_present"] is not None:
                print(
                    f"{name} by a camera: {part['points']:,} labelled points, miou_present "
                    f"{part['miou_present']:.4f}"
                )
    else:
        print("no scene has labels: predicted, not scored")
    print(f"{metrics['scenes']} scenes, {metrics['predicted_points']:,} points; results in {out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    missing = [name for name in ("--model", "--dataset") if getattr(arguments, name[2:]) is None]
    if arguments.sum is None and missing:
        parser.error(f"the following arguments are required: {', '.join(missing)}")
    if arguments.sum is not None and len(missing) < 2:
        parser.error("--sum takes the folders of finished tests, and neither --model nor --dataset")

    def run() -> int:
        with bar() as shown:
            return (_run if arguments.sum is None else _sum)(arguments, shown)

    return run_command(NAME, run)


if __name__ == "__main__":
    sys.exit(main())
