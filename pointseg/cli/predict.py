"""``pointseg-predict``: parse, make one PredictSpec, predict, say what came of it. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.device import choose_device
from pointseg.cli.command import run_command
from pointseg.cli.images import add_seeing, model_encoder, seeing_changes
from pointseg.cli.progress import Bar, bar
from pointseg.cli.test import add_machine, add_protocol, choose_precision, protocol_changes
from pointseg.datasets.conventions import UNITS_M

if TYPE_CHECKING:
    from pointseg.datasets.folder.cameras import CameraRule

NAME = "pointseg-predict"
SEEN_FROM = ("middle", "origin", "up")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Names the points of clouds. For each PLY, PCD, LAS, LAZ, BIN, text or numpy file the "
        "same file comes out with a field for the class, everything else in it kept; beside it a record "
        "(.json) and pictures from above and from the side. Results that are there already are kept. Exit "
        "code 0: all done; 1: some files failed, listed at the end; 2: nothing can be done.",
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="FILES", help="clouds, or folders that are walked"
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT",
        help="folder for the results; or the result itself, for one file",
    )  # fmt: skip
    parser.add_argument(
        "-m", "--model", type=Path, required=True, metavar="FILE", help="best.pt of pointseg-train"
    )
    parser.add_argument(
        "--colors", action="store_true", help="give the points the colours of their classes"
    )
    parser.add_argument("--no-pictures", action="store_true", help="only the files")
    parser.add_argument("--overwrite", action="store_true", help="predict again what is there")
    cloud = parser.add_argument_group("what the clouds are like")
    cloud.add_argument(
        "--unit",
        choices=tuple(UNITS_M),
        help="of their coordinates (default: as in training, else metre)",
    )
    cloud.add_argument(
        "--up",
        choices=("z", "y", "-y"),
        help="their vertical axis; --up=-y for camera coordinates (default: as in training, else z)",
    )
    cloud.add_argument(
        "--seen-from",
        choices=SEEN_FROM,
        help="where normals point to that had to be estimated: the middle of the cloud (default for "
        "models of rooms), the origin, where LiDAR scans and depth images have their sensor (default for "
        "outdoor models), or up",
    )
    cloud.add_argument(
        "--strength-max", type=float, metavar="MAX",
        help="their intensity that counts as 1, such as 255 or 65535 (default: as in training, else "
        "guessed for each file, which is said)",
    )  # fmt: skip
    cloud.add_argument(
        "--any-scale", action="store_true",
        help="predict, too, what does not seem to fit the model's voxels",
    )  # fmt: skip
    seen = parser.add_argument_group("models that read images")
    seen.add_argument(
        "--weights",
        metavar="FILE",
        help="of the image encoder, those that the model was trained with",
    )
    add_seeing(seen)
    seen.add_argument(
        "--cameras", metavar="WHERE",
        help="the posed images of each cloud: 'organised' for RGB-D .pcd files, which hold their image; a "
        "manifest beside the cloud, such as '{scene}.cameras.json'; or a folder with COLMAP's cameras.txt and "
        "images.txt, one for all clouds, or with --images one beside each, such as '{scene}/sparse'",
    )  # fmt: skip
    seen.add_argument(
        "--images", metavar="DIR",
        help="for COLMAP: the folder of its images (default: 'images' beside its model)",
    )  # fmt: skip
    passes = parser.add_argument_group("how they are predicted")
    passes.add_argument(
        "--full", action="store_true",
        help="as in tests: all views of the recipe, every point; without it one pass, in which one point "
        "of each voxel names the others",
    )  # fmt: skip
    add_protocol(passes, views="; asks for --full")
    add_machine(parser)
    return parser


def _run(arguments: argparse.Namespace, shown: Bar) -> int:
    from pointseg.prediction.predict import PredictSpec, predict
    from pointseg.prediction.summary_table import table

    device = choose_device(arguments.device)
    changed = arguments.image_views is not None or arguments.allow_unseen
    results = predict(
        PredictSpec(
            inputs=tuple(arguments.inputs),
            out=arguments.out,
            model=arguments.model,
            protocol=protocol_changes(arguments),
            full=arguments.full or arguments.views is not None,
            unit_m=None if arguments.unit is None else UNITS_M[arguments.unit],
            up=arguments.up,
            strength_max=arguments.strength_max,
            seen_from=arguments.seen_from,
            encoder=model_encoder(arguments),
            seeing=seeing_changes(arguments) if changed else None,
            cameras=_cameras(arguments.cameras, arguments.images),
            any_scale=arguments.any_scale,
            colors=arguments.colors,
            pictures=not arguments.no_pictures,
            overwrite=arguments.overwrite,
            device=device,
            precision=choose_precision(arguments.precision, device),
            log=shown.say,
            progress=shown,
        )
    )
    shown.close()
    print(table(results))
    failed = [result for result in results if result.status == "failed"]
    for result in failed:
        print(f"failed: {result.source}: {result.reason}")
    print(f"{len(results) - len(failed)} of {len(results)} done; results in {arguments.out}")
    return 1 if failed else 0


def _cameras(text: str | None, images: str | None) -> CameraRule | None:
    """Where images are: a folder that is there is COLMAP's model for all clouds, other paths are below each's."""
    from dinomed3d.runtime.errors import UserError
    from pointseg.datasets.folder.cameras import ORGANISED, literal, parse_cameras

    if text is None or (text == ORGANISED and images is not None):
        if images is not None:
            raise UserError("--images: is for COLMAP, whose model is given with --cameras FOLDER")
        return None
    rule = None if images is None else {"colmap": text, "images": images}
    if text != ORGANISED and Path(text).is_dir():
        folder = Path(text).absolute()
        beside = folder.parent / "images" if images is None else Path(images)
        rule = {"colmap": literal(folder), "images": literal(beside)}
    try:
        return parse_cameras(rule or text)
    except ValueError as error:
        raise UserError(
            f"--cameras {text}: {error}; for COLMAP give the folder of its text model, and that of its images "
            "with --images"
        ) from error


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)

    def run() -> int:
        with bar() as shown:
            return _run(arguments, shown)

    return run_command(NAME, run)


if __name__ == "__main__":
    sys.exit(main())
