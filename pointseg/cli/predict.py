"""``pointseg-predict``: parse, build one PredictSpec, predict, print the results. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.hub.local_model import CLOUD, local_model
from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.hardware.device import choose_device
from dinomed3d.runtime.messages.terminal_text import lines_of, one_line
from pointseg.cli.arguments import (
    add_device,
    add_inference,
    add_own_backbone,
    column_names,
    inference_changes,
)
from pointseg.cli.image_arguments import add_image_use, image_changes, model_encoder
from pointseg.cli.progress import Bar, bar
from pointseg.conventions import NORMAL_ORIENTATIONS, UNITS_M, UP_AXES

if TYPE_CHECKING:
    from pointseg.prediction.spec import PredictSpec

NAME = "pointseg-predict"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-predict scan.laz -m runs/first/best.pt -o predicted",
        description="Predicts a class for every point of clouds. Each PLY, PCD, LAS, LAZ, BIN, text or numpy file "
        "is written again with a field for the class and everything else unchanged, PTX and E57 as PLY, with a record "
        "(.json) and pictures next to it. Existing results are kept.",
        epilog="Exit codes: 0 all files are done; 1 some files failed, listed at the end (no record of them is kept: "
        "the next run tries them again); 2 nothing could be done: the line says why; 130 interrupted.",
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="FILES", help="files, or folders to search"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT",
        help="folder for the results; or the result itself, for one file",
    )  # fmt: skip
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help="best.pt of pointseg-train, or hf:owner/name[@revision] for one that 'pointseg-package --push' put on the "
        "Hugging Face hub",
    )
    add_own_backbone(parser)
    parser.add_argument("--colors", action="store_true", help="colour the points by class")
    _add_certainty(parser.add_argument_group("how sure classes are"))
    _add_classification(parser)
    parser.add_argument(
        "--height", action="store_true",
        help="write a field height_above_ground: metres above the lowest points around, of clouds with z up",
    )  # fmt: skip
    parser.add_argument("--no-pictures", action="store_true", help="write no pictures")
    parser.add_argument("--overwrite", action="store_true", help="replace existing results")
    parser.add_argument(
        "--stream", action="store_true",
        help="predict clouds piece by piece through files next to the result, with little memory; without it, only "
        "those that do not fit into memory are. A run that was stopped goes on when it is started again",
    )  # fmt: skip
    _add_format(parser.add_argument_group("input format"))
    images = parser.add_argument_group("models that read images")
    images.add_argument(
        "--weights", metavar="FILE",
        help="weights of the image encoder that the model was trained with",
    )  # fmt: skip
    add_image_use(images)
    images.add_argument(
        "--cameras", metavar="WHERE",
        help="posed images of each cloud: 'organised' for RGB-D .pcd files, which contain their image; a "
        "cameras.json, transforms.json or Metashape's .xml next to the cloud, such as '{scene}.cameras.json'; or the "
        "folder of a COLMAP model, one for all clouds, or with --images one for each, such as '{scene}/sparse'",
    )  # fmt: skip
    images.add_argument(
        "--images", metavar="DIR",
        help="folder of the images (default: 'images' next to a COLMAP model, or where the file says)",
    )  # fmt: skip
    add_inference(parser.add_argument_group("prediction"), is_opt_in=True)
    add_device(parser)
    add_json(parser)
    return parser


def _add_classification(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "classification of LAS and LAZ files",
        "A model trained on 'classification' of LAS files knows the ASPRS code of each class and writes it there; what "
        "was there stays in 'input_classification'. Flags of points (synthetic, key point, withheld, overlap) stay.",
    )
    group.add_argument(
        "--write-classification", action="store_true",
        help="refuse models of which a class has no code; files of other types get a field 'classification', too",
    )  # fmt: skip
    group.add_argument(
        "--class-code", type=_class_code, nargs="+", action="extend", default=[], metavar="NAME=CODE",
        help="ASPRS codes of classes, such as building=6 water=9, where the model knows none or others are wanted",
    )  # fmt: skip
    group.add_argument(
        "--keep-classification", action="store_true",
        help="leave 'classification' as it is; the classes then stand in 'pointseg_class' alone",
    )  # fmt: skip
    group.add_argument(
        "--no-input-classification", action="store_true",
        help="do not keep in 'input_classification' what was in 'classification'",
    )  # fmt: skip


def _add_certainty(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--confidence", action="store_true",
        help="write fields of three numbers from 0 to 1: confidence, the probability of the class; entropy of all "
        "probabilities, divided by that of equal ones; margin between the first and the second class. PLY, PCD, LAS, "
        "text, .npz, structured .npy; .bin has no place for them",
    )  # fmt: skip
    group.add_argument(
        "--reject", type=_confidence, metavar="CONFIDENCE",
        help="points with less confidence, such as 0.6, get no class: -1, and 1 (unclassified) in 'classification' "
        "where codes are written there",
    )  # fmt: skip


def _confidence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(
            f"must be a number above 0 and up to 1, such as 0.6, got {text!r}"
        )
    return value


def _class_code(text: str) -> tuple[str, int]:
    name, equals, code = text.rpartition("=")
    if not equals:
        raise argparse.ArgumentTypeError(
            f"must be NAME=CODE, such as building=6, got {text!r}; FILES stand before this option"
        )
    if not code.isdecimal() or int(code) > 255:
        raise argparse.ArgumentTypeError(f"must be NAME=CODE with a code of 0 to 255, got {text!r}")
    return name, int(code)


def _add_format(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--unit",
        choices=tuple(UNITS_M),
        help="unit of the coordinates (default: as stated in training, else as LAS files say, else metre)",
    )
    group.add_argument(
        "--up", choices=UP_AXES,
        help="vertical axis; --up=-y for camera coordinates (default: as in training, else z)",
    )  # fmt: skip
    group.add_argument(
        "--orient-normals", choices=NORMAL_ORIENTATIONS,
        help="orientation of estimated normals: towards the middle of the cloud (default of indoor models), "
        "the origin, where LiDAR scans and depth images have their sensor (default of outdoor models), or up",
    )  # fmt: skip
    group.add_argument(
        "--columns", type=column_names, metavar="NAMES",
        help="names of the columns of text and .bin files, such as x,y,z,intensity,ring; they replace those of a text "
        "file if there are as many, or as many but for the labels (default: as in training)",
    )  # fmt: skip
    group.add_argument(
        "--color-max", type=float, metavar="MAX",
        help="largest colour, 1, 255 or 65535 (default: as stated in training, else found in each file, with a note)",
    )  # fmt: skip
    group.add_argument(
        "--intensity-min", type=float, metavar="MIN",
        help="intensity that is scaled to 0, such as -2048 (default: as stated in training, else found in each file, "
        "with a note)",
    )  # fmt: skip
    group.add_argument(
        "--intensity-max", type=float, metavar="MAX",
        help="intensity that is scaled to 1, such as 255 or 65535 (default: likewise)",
    )  # fmt: skip
    group.add_argument(
        "--skip-scale-check", action="store_true",
        help="also predict clouds whose scale does not seem to fit the voxel size of the model",
    )  # fmt: skip


def _spec(arguments: argparse.Namespace, progress: Bar) -> PredictSpec:
    from pointseg.config.precision import choose_precision
    from pointseg.prediction.inputs.cloud_images import camera_rule
    from pointseg.prediction.spec import PredictSpec

    device = choose_device(arguments.device)
    return PredictSpec(
        inputs=tuple(arguments.inputs),
        out=arguments.out,
        model=local_model(arguments.model, CLOUD),
        backbone=arguments.backbone,
        test_changes=inference_changes(arguments),
        tta=arguments.tta is not None,
        unit_m=None if arguments.unit is None else UNITS_M[arguments.unit],
        up=arguments.up,
        columns=arguments.columns,
        color_max=arguments.color_max,
        intensity_min=arguments.intensity_min,
        intensity_max=arguments.intensity_max,
        orient_normals=arguments.orient_normals,
        encoder=model_encoder(arguments),
        image_changes=image_changes(arguments),
        cameras=camera_rule(arguments.cameras, arguments.images),
        check_scale=not arguments.skip_scale_check,
        class_codes=dict(arguments.class_code),
        keep_classification=arguments.keep_classification,
        write_classification=arguments.write_classification,
        keep_former=not arguments.no_input_classification,
        height=arguments.height,
        confidence=arguments.confidence,
        reject=arguments.reject,
        colors=arguments.colors,
        pictures=not arguments.no_pictures,
        overwrite=arguments.overwrite,
        stream=arguments.stream,
        device=device,
        precision=choose_precision(arguments.precision, device),
        log=progress.say,
        progress=progress,
    )


def _run(arguments: argparse.Namespace) -> int:
    from pointseg.prediction.predict import predict
    from pointseg.prediction.results.summary_table import summary_table

    with json_alone(arguments.json), bar() as progress:
        results = predict(_spec(arguments, progress))
    failed = [result for result in results if result.status == "failed"]
    if arguments.json:
        print_json("pointseg-predict-1", {"results": arguments.out, "files": list(results)})
        return 1 if failed else 0
    print(lines_of(summary_table(results)))
    for result in failed:
        reason = result.reason.removeprefix(f"{result.source}: ")  # which many reasons begin with
        print(one_line(f"failed: {result.source}: {reason}"))
    print(f"{len(results) - len(failed)} of {len(results)} done; results in {arguments.out}")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(
        NAME,
        lambda: _run(arguments),
        results=arguments.out,
        again="finished files are kept; the same command goes on with the others",
    )


if __name__ == "__main__":
    sys.exit(main())
