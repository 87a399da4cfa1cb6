"""``pointseg-prepare``: parse, prepare a public dataset once, report. Heavy imports come late."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pointseg.cli.command import run_command
from pointseg.datasets.conventions import PREPARED_DATASETS

if TYPE_CHECKING:
    from pointseg.datasets.prepare_scenes import Preparation

NAME = "pointseg-prepare"
IN_SOURCE = Path("in --source")
NATIVE = "native"
SHOWN = 20
"""Failures and notes that are printed one by one; the rest is in dataset.json, or counted."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Prepares the official download of a public dataset for pointseg-train and its "
        "siblings. ScanNet (one preparation serves scannet and scannet200) and S3DIS become arrays; "
        "SemanticKITTI and nuScenes are checked and indexed, their files stay where they are. Run the "
        "same command again to go on: scenes that are finished are kept.",
        epilog="Exit codes: 0 all scenes are ready; 1 some failed, they are listed, and the others are "
        "ready; 2 nothing could be done; 130 interrupted.",
    )
    parser.add_argument("--dataset", required=True, choices=PREPARED_DATASETS)
    parser.add_argument(
        "--source", required=True, type=Path, metavar="DIR", help="the official download, unpacked"
    )
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR",
        help="where the prepared data goes; later commands' --root",
    )  # fmt: skip
    parser.add_argument(
        "--images", nargs="?", type=Path, const=IN_SOURCE, metavar="DIR",
        help="prepare the images, too (also later, beside scenes that are ready), for --images of later "
        "commands. DIR: where they lie, if not in --source: ScanNet's .sens streams or extracted frames, "
        "2D-3D-S for s3dis (needed there), the odometry benchmark's colour images for semantickitti, nuScenes' "
        "camera blobs",
    )  # fmt: skip
    parser.add_argument(
        "--image-size", type=image_size, metavar="HxW",
        help="scannet: size of images that are exported from streams, such as 480x640 (default), or native",
    )  # fmt: skip
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes for scannet and s3dis (default: by cores)",
    )
    parser.add_argument(
        "--align", action="store_true", help="s3dis: turn rooms so that walls follow the axes"
    )
    parser.add_argument(
        "--normals", choices=("estimate", "none"),
        help="s3dis: estimate normals from the points, or leave them out (default: estimate)",
    )  # fmt: skip
    parser.add_argument(
        "--version", metavar="NAME",
        help="nuscenes: v1.0-trainval, v1.0-mini or v1.0-test (default: what is there, mini last)",
    )  # fmt: skip
    return parser


def image_size(text: str) -> tuple[int, int] | str:
    """480x640 as height and width; native stays as it is."""
    if text == NATIVE:
        return NATIVE
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"must be height x width such as 480x640, got {text!r}")
    return int(height), int(width)


class Progress:
    """Scenes done and the time left, on one line of a terminal or a line now and then in a log."""

    def __init__(self, unit: str, stream: TextIO) -> None:
        self._unit, self._stream = unit, stream
        self._start, self._shown = time.monotonic(), float("-inf")
        self._live = stream.isatty()
        self._width = 0

    def __call__(self, done: int, kept: int, total: int) -> None:
        """Show it, if enough time has passed since the last time."""
        now = time.monotonic()
        if done < total and now - self._shown < (0.2 if self._live else 30):
            return
        self._shown = now
        text = f"{done}/{total} {self._unit}"
        if kept:
            text += f" ({kept} were ready before)"
        if kept < done < total:
            left = (now - self._start) / (done - kept) * (total - done)
            text += f", {duration(left)} left"
        elif done == total:
            text += f" in {duration(now - self._start)}"
        if self._live:
            self._stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """End the line."""
        if self._live and self._width:
            self._stream.write("\n")
            self._width = 0


def duration(seconds: float) -> str:
    """5 s, 4 min or 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _run(arguments: argparse.Namespace) -> int:
    from dinomed3d.runtime.errors import UserError

    _check(arguments)
    unit = {"s3dis": "rooms", "semantickitti": "sequences", "nuscenes": "keyframes"}
    progress = Progress(unit.get(arguments.dataset, "scenes"), sys.stderr)
    try:
        result = _prepare(arguments, progress)
    except OSError as error:
        raise UserError(f"{error.filename or arguments.out}: {error.strerror or error}") from error
    finally:
        progress.close()
    return _show(result, arguments.out)


def _check(arguments: argparse.Namespace) -> None:
    from dinomed3d.runtime.errors import UserError

    for option, dataset in (("align", "s3dis"), ("normals", "s3dis"), ("version", "nuscenes")):
        if getattr(arguments, option) and arguments.dataset != dataset:
            raise UserError(f"--{option}: is only for --dataset {dataset}")
    images = arguments.images
    if arguments.image_size and (images is None or not arguments.dataset.startswith("scannet")):
        raise UserError("--image-size: is only for --dataset scannet with --images")
    if images is IN_SOURCE and arguments.dataset == "s3dis":
        raise UserError("--images: must name the folder of 2D-3D-S for s3dis, with area_1/data/rgb")
    if images not in (None, IN_SOURCE) and not images.is_dir():
        raise UserError(f"--images {images}: is no folder; name the one that the images lie in")
    if arguments.workers is not None and arguments.workers < 1:
        raise UserError(f"--workers: must be >= 1, got {arguments.workers}")
    if not arguments.source.is_dir():
        raise UserError(f"--source {arguments.source}: is no folder; name the unpacked download")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UserError(
            f"--out {arguments.out}: is a file; name a folder, which is made if need be"
        )


def _prepare(arguments: argparse.Namespace, progress: Progress) -> Preparation:
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
    if arguments.dataset == "semantickitti":
        from pointseg.datasets.semantickitti import prepare as semantickitti_prepare

        return semantickitti_prepare.prepare(source, out, images=images, report=progress)
    from pointseg.datasets.nuscenes import prepare as nuscenes_prepare

    return nuscenes_prepare.prepare(
        source, out, version=arguments.version, images=images, report=progress
    )


def _show(result: Preparation, out: Path) -> int:
    for split, scenes in result.splits.items():
        print(f"{split:<8} {len(scenes)} ready")
    print(f"prepared {out}")
    for note in result.notes[:SHOWN]:
        print(f"note: {note}", file=sys.stderr)
    if len(result.notes) > SHOWN:
        print(f"note: and {len(result.notes) - SHOWN} more", file=sys.stderr)
    if not result.failed:
        return 0
    print(
        f"{NAME}: {len(result.failed)} failed; mend them and run the command again:",
        file=sys.stderr,
    )
    for name, reason in list(result.failed.items())[:SHOWN]:
        print(f"  {name}: {reason}", file=sys.stderr)
    if len(result.failed) > SHOWN:
        print(
            f"  and {len(result.failed) - SHOWN} more: see 'failed' in {out / 'dataset.json'}",
            file=sys.stderr,
        )
    return 1


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(NAME, lambda: _run(arguments))


if __name__ == "__main__":
    sys.exit(main())
