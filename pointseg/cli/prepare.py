"""``pointseg-prepare``: parse, prepare a public dataset once, report. Heavy imports come late."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.messages.terminal_text import one_line
from pointseg.cli.arguments import at_least
from pointseg.cli.progress import Counter
from pointseg.conventions import PREPARED_DATASETS

if TYPE_CHECKING:
    from pointseg.datasets.prepare_scenes import Preparation

NAME = "pointseg-prepare"
IN_SOURCE = Path("in --source")
NATIVE = "native"
LISTED = 20
"""Failures and notes that are printed; the others are counted, failures are also in dataset.json."""
UNITS = {
    "s3dis": "rooms",
    "structured3d": "rooms",
    "semantickitti": "sequences",
    "nuscenes": "keyframes",
    "waymo": "segments",
}
"""What a dataset calls its scenes."""


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-prepare --dataset s3dis --source Stanford3dDataset_v1.2 --out data/s3dis",
        description="Prepares the official download of a public dataset for pointseg-train and other "
        "commands. ScanNet (one preparation for scannet and scannet200), S3DIS, Structured3D and Waymo are converted "
        "to arrays; SemanticKITTI and nuScenes are checked and indexed, their files stay in place. Run the "
        "same command again to continue: finished scenes are kept.",
        epilog="Exit codes: 0 all scenes are ready; 1 some failed, which are listed, the others are "
        "ready; 2 nothing could be done; 130 interrupted.",
    )
    parser.add_argument(
        "--dataset", required=True, choices=PREPARED_DATASETS, help="the public dataset"
    )
    parser.add_argument(
        "--source", required=True, type=Path, metavar="DIR", help="the official download, unpacked"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR",
        help="folder for the prepared data: --root of other commands",
    )  # fmt: skip
    parser.add_argument(
        "--images", nargs="?", type=Path, const=IN_SOURCE, metavar="DIR",
        help="also prepare the images (possible later, for scenes that are ready), for --images of other "
        "commands. DIR: their folder if it is not --source: ScanNet's .sens streams or extracted frames, "
        "2D-3D-S for s3dis (required there), the odometry benchmark's colour images for semantickitti, the "
        "camera blobs for nuscenes",
    )  # fmt: skip
    parser.add_argument(
        "--image-size", type=image_size, metavar="HxW",
        help="scannet: size of images exported from streams, such as 480x640 (default), or native",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=at_least(1), metavar="N",
        help="processes for scannet, s3dis, structured3d and waymo (default: number of cores, at most 8)",
    )  # fmt: skip
    parser.add_argument(
        "--align",
        action="store_true",
        help="s3dis: rotate rooms so that walls are parallel to the axes",
    )
    parser.add_argument(
        "--normals", choices=("estimate", "none"),
        help="s3dis: estimate normals from the points, or leave them out (default: estimate)",
    )  # fmt: skip
    parser.add_argument(
        "--version", metavar="NAME",
        help="nuscenes: v1.0-trainval, v1.0-test or v1.0-mini (default: trainval and test, those that exist, else "
        "mini)",
    )  # fmt: skip
    parser.add_argument(
        "--frames", type=Path, metavar="FILE",
        help="waymo: the published list of test frames, 3d_semseg_test_set_frames.txt; without it the testing "
        "segments are left out",
    )  # fmt: skip
    add_json(parser)
    return parser


def image_size(text: str) -> tuple[int, int] | str:
    """480x640 as height and width; native as it is."""
    if text == NATIVE:
        return NATIVE
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"must be height x width such as 480x640, got {text!r}")
    return int(height), int(width)


def _check(arguments: argparse.Namespace) -> None:
    for option, dataset in (
        ("align", "s3dis"),
        ("normals", "s3dis"),
        ("version", "nuscenes"),
        ("frames", "waymo"),
    ):
        if getattr(arguments, option) and arguments.dataset != dataset:
            raise UserError(f"--{option}: is only for --dataset {dataset}")
    images = arguments.images
    if arguments.image_size and (images is None or not arguments.dataset.startswith("scannet")):
        raise UserError("--image-size: is only for --dataset scannet with --images")
    if images is IN_SOURCE and arguments.dataset == "s3dis":
        raise UserError("--images: must name the folder of 2D-3D-S for s3dis, with area_1/data/rgb")
    for option, folder in (("source", arguments.source), ("images", images)):
        if folder not in (None, IN_SOURCE) and not folder.is_dir():
            raise UserError(f"--{option} {folder}: must be an existing folder")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(f"--out {arguments.out}: must be a folder, is a file")


def _prepare(
    arguments: argparse.Namespace, progress: Callable[[int, int, int], None]
) -> Preparation:
    source, out = arguments.source, arguments.out
    workers = arguments.workers or min(8, os.cpu_count() or 1)
    images = source if arguments.images is IN_SOURCE else arguments.images
    if arguments.dataset in ("scannet", "scannet200"):
        from pointseg.datasets.scannet import prepare as scannet_prepare
        from pointseg.datasets.scannet.dataset import IMAGE_SIZE

        size = arguments.image_size or IMAGE_SIZE
        return scannet_prepare.prepare(
            source,
            out,
            images=images,
            image_size=None if size == NATIVE else size,
            workers=workers,
            report=progress,
        )
    if arguments.dataset == "s3dis":
        from pointseg.datasets.s3dis import prepare as s3dis_prepare

        return s3dis_prepare.prepare(
            source,
            out,
            align=arguments.align,
            normals=arguments.normals or "estimate",
            images=images,
            workers=workers,
            report=progress,
        )
    if arguments.dataset == "structured3d":
        from pointseg.datasets.structured3d import prepare as structured3d_prepare

        return structured3d_prepare.prepare(
            source, out, images=images, workers=workers, report=progress
        )
    if arguments.dataset == "semantickitti":
        from pointseg.datasets.semantickitti import prepare as semantickitti_prepare

        return semantickitti_prepare.prepare(source, out, images=images, report=progress)
    if arguments.dataset == "waymo":
        from pointseg.datasets.waymo import prepare as waymo_prepare

        return waymo_prepare.prepare(
            source, out, images=images, frames=arguments.frames, workers=workers, report=progress
        )
    from pointseg.datasets.nuscenes import prepare as nuscenes_prepare

    return nuscenes_prepare.prepare(
        source, out, version=arguments.version, images=images, report=progress
    )


def _run(arguments: argparse.Namespace) -> int:
    _check(arguments)
    counter = Counter(UNITS.get(arguments.dataset, "scenes"))
    try:
        with json_alone(arguments.json):
            result = _prepare(arguments, counter)
    finally:
        counter.close()
    if arguments.json:
        print_json("pointseg-prepare-1", {"prepared": arguments.out, **asdict(result)})
        return int(bool(result.failed))
    for split, scenes in result.splits.items():
        print(f"{split:<8} {len(scenes)} ready")
    print(f"prepared {arguments.out}")
    _list([f"note: {note}" for note in result.notes])
    if result.failed:
        print(f"{NAME}: {len(result.failed)} failed; fix them and run again:", file=sys.stderr)
        _list([f"  {name}: {reason}" for name, reason in result.failed.items()])
    return int(bool(result.failed))


def _list(lines: Sequence[str]) -> None:
    for line in lines[:LISTED]:
        print(one_line(line), file=sys.stderr)
    if len(lines) > LISTED:
        print(f"  and {len(lines) - LISTED} more", file=sys.stderr)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(
        NAME,
        lambda: _run(arguments),
        results=arguments.out,
        alone="--workers 1",
        again="scenes that are ready are kept; the same command goes on with the others",
    )


if __name__ == "__main__":
    sys.exit(main())
