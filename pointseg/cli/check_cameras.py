"""``pointseg-check-cameras``: parse, build one CheckSpec, check, print the result. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.terminal_text import lines_of, one_line
from pointseg.cli.arguments import NameOrPlugin, at_least
from pointseg.cli.image_arguments import add_visibility, visibility
from pointseg.cli.progress import Bar, bar
from pointseg.conventions import DATASETS, PICTURE_UP_AXES, UNITS_M
from pointseg.plugins import FORM

if TYPE_CHECKING:
    from pointseg.images.camera_check.check import CheckSpec

NAME = "pointseg-check-cameras"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-check-cameras cloud.ply --cameras cameras.json -o check",
        description="Checks whether the images of a scene fit its points: draws the points over each image "
        "(coloured by depth) and the images onto the points, prints the share of points visible in each view and "
        "how well depths and colours agree, and reports poses that look inverted, depths in another unit, "
        "intrinsics that do not fit an image and views that show no point.",
        epilog="Exit codes: 0 checked, whatever was found; 1 with --strict, a problem was found; 2 nothing "
        "could be checked; 130 interrupted.",
    )
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="folder for pictures"
    )
    parser.add_argument("--strict", action="store_true", help="exit code 1 if a problem is found")
    parser.add_argument(
        "--max-views", type=at_least(1), default=8, metavar="N",
        help="maximum number of views to check, evenly spread over those that show points (default: 8)",
    )  # fmt: skip
    files = parser.add_argument_group("a cloud in a file")
    files.add_argument(
        "cloud", nargs="?", type=Path, metavar="CLOUD",
        help="the file; without --cameras an organised .pcd, which is its own image",
    )  # fmt: skip
    files.add_argument(
        "--cameras", type=Path, metavar="PATH",
        help="cameras.json, transforms.json (nerfstudio, Polycam), Metashape's .xml, or the folder of a COLMAP model",
    )  # fmt: skip
    files.add_argument(
        "--images", type=Path, metavar="DIR",
        help="folder of the images (default: 'images' next to a COLMAP model, or where the file says)",
    )  # fmt: skip
    files.add_argument(
        "--unit", choices=tuple(UNITS_M),
        help="unit of coordinates and poses (default: as a LAS file says, else metre); depth maps have their own, "
        "depth_scale",
    )  # fmt: skip
    data = parser.add_argument_group("a scene of a dataset")
    data.add_argument(
        "--dataset", type=NameOrPlugin(DATASETS), metavar="NAME",
        help=f"instead of CLOUD: {', '.join(DATASETS)}; or {FORM}, a class of your own",
    )  # fmt: skip
    data.add_argument("--root", type=Path, metavar="DIR", help="folder of the dataset")
    data.add_argument(
        "--config", type=Path, metavar="YAML",
        help="description of your folder (default: ROOT/dataset.yaml)",
    )  # fmt: skip
    data.add_argument("--split", metavar="NAME", help="split of the scene (default: the first one)")
    data.add_argument(
        "--scene", metavar="NAME", help="scene to check (default: the first one with images)"
    )
    add_visibility(
        parser.add_argument_group("visibility"),
        tolerance="as in pointseg-train for the dataset, 0.2 for a file",
    )
    parser.add_argument(
        "--up", choices=PICTURE_UP_AXES,
        help="axis that points up in pictures; --up=-y for camera coordinates (default: z; -y for an organised "
        "cloud)",
    )  # fmt: skip
    add_json(parser)
    return parser


def _spec(arguments: argparse.Namespace, progress: Bar) -> CheckSpec:
    from pointseg.images.camera_check.check import CheckSpec
    from pointseg.loading import posed_scene

    if arguments.dataset is not None:
        _refuse(
            arguments, ("cloud", "cameras", "images", "unit"), "a cloud in a file, not --dataset"
        )
        posed = posed_scene.posed_scene_of_dataset(
            arguments.dataset, arguments.root, arguments.config, arguments.split, arguments.scene
        )
    elif arguments.cloud is None:
        raise UserError("CLOUD, --dataset: give a file, or --dataset with --root")
    else:
        _refuse(arguments, ("root", "config", "split", "scene"), "--dataset")
        posed = posed_scene.posed_scene_of_files(
            arguments.cloud,
            arguments.cameras,
            arguments.images,
            unit=arguments.unit,
            log=progress.say,
        )
    return CheckSpec(
        scene=posed_scene.measured_points(posed.scene, progress.say),
        frames=posed.frames,
        out=arguments.out,
        count=arguments.max_views,
        visibility=visibility(arguments, posed.depth_tolerance_m),
        up=arguments.up or posed.up,
        turn=posed.turn,
        unit_m=posed.unit_m,
        units=UNITS_M,
        progress=progress,
    )


def _refuse(arguments: argparse.Namespace, names: Sequence[str], what: str) -> None:
    for name in names:
        if getattr(arguments, name) is not None:
            option = "CLOUD" if name == "cloud" else f"--{name}"
            raise UserError(f"{option}: is only for {what}")


def _run(arguments: argparse.Namespace) -> int:
    from pointseg.images.camera_check.check import check_cameras
    from pointseg.images.camera_check.report import as_json, summary, view_table

    with json_alone(arguments.json), bar() as progress:
        spec = _spec(arguments, progress)
        found = check_cameras(spec)
    if arguments.json:
        print_json("pointseg-check-cameras-1", as_json(found, frames=len(spec.frames)))
    else:
        print(lines_of(view_table(found)))
        for line in summary(found, frames=len(spec.frames), checked=arguments.max_views):
            print(one_line(line))
        print(f"look at {arguments.out / 'cloud.png'} and {arguments.out / 'views'}")
    return int(arguments.strict and not all(issue.note for issue in found.issues))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(NAME, lambda: _run(arguments), results=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
