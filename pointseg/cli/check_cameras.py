"""``pointseg-check-cameras``: parse, make one CheckSpec, check, print what was found. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pointseg.cli.command import at_least, run_command
from pointseg.cli.images import DEFAULT
from pointseg.cli.progress import Bar, bar
from pointseg.cli.train import fitted
from pointseg.datasets.conventions import DATASETS, PICTURE_UP_AXES, UNITS_M
from pointseg.images.visibility import OCCLUSIONS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pointseg.images.calibration.check import CameraCheck, CheckSpec
    from pointseg.images.readers.frame import Frame, ProvidesFrames
    from pointseg.scene import Scene

NAME = "pointseg-check-cameras"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Shows whether the images of a scene and its points meet: draws points over each image "
        "(by depth) and the images onto the points, prints the share of points that each view sees and how "
        "well depths and colours agree, and says when poses look inverted, when depths are in another unit, "
        "when K does not fit an image or when a view sees nothing.",
        epilog="Exit codes: 0 checked, whatever was found; 1 with --strict, something looks wrong; 2 nothing "
        "could be checked; 130 interrupted.",
    )
    parser.add_argument(
        "cloud", nargs="?", type=Path, metavar="CLOUD",
        help="a file; without --cameras an organised .pcd, which is its own image",
    )  # fmt: skip
    parser.add_argument(
        "--cameras", type=Path, metavar="PATH",
        help="for CLOUD: a manifest (cameras.json), or a folder with COLMAP's cameras.txt and images.txt",
    )  # fmt: skip
    parser.add_argument(
        "--images", type=Path, metavar="DIR",
        help="for COLMAP: the folder of its images (default: 'images' beside its model)",
    )  # fmt: skip
    parser.add_argument(
        "--dataset", choices=DATASETS, help="instead of CLOUD: a scene of a dataset"
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="of the dataset")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="YAML",
        help="folder: its description (default: ROOT/dataset.yaml)",
    )
    parser.add_argument("--split", metavar="NAME", help="(default: the dataset's first)")
    parser.add_argument("--scene", metavar="NAME", help="(default: the first that has images)")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="where pictures go"
    )
    parser.add_argument(
        "--views", type=at_least(1), default=8, metavar="N",
        help="images to look at, evenly spread over those that have points in view (default: 8)",
    )  # fmt: skip
    parser.add_argument(
        "--unit", choices=tuple(UNITS_M),
        help="for CLOUD: of its coordinates and of its cameras' poses; depth maps have their own, depth_scale "
        "(default: metre)",
    )  # fmt: skip
    parser.add_argument(
        "--up", choices=PICTURE_UP_AXES,
        help="axis of the points that points up, for pictures; --up=-y for camera coordinates (default: z; -y "
        "where a cloud is its own image)",
    )  # fmt: skip
    parser.add_argument(
        "--occlusion", choices=OCCLUSIONS, default="z-buffer",
        help="what hides points: depth maps, and the cloud itself where there are none (z-buffer, the "
        "default); depth maps alone; nothing",
    )  # fmt: skip
    parser.add_argument(
        "--near",
        type=float,
        default=0.0,
        metavar="M",
        help="nearer points are not seen (default: 0)",
    )
    parser.add_argument("--far", type=float, metavar="M", help="farther points are not seen")
    parser.add_argument(
        "--margin", type=float, metavar="M",
        help="how far points may be off a depth map, metres (default: as pointseg-train has it for the dataset, "
        "0.2 for the file of a cloud)",
    )  # fmt: skip
    parser.add_argument(
        "--strict", action="store_true", help="exit code 1 if something looks wrong"
    )
    return parser


def _spec(arguments: argparse.Namespace, shown: Bar) -> CheckSpec:
    from dinomed3d.runtime.errors import UserError
    from pointseg.images.calibration.check import CheckSpec
    from pointseg.images.visibility import VisibilityConfig

    if (arguments.cloud is None) == (arguments.dataset is None):
        raise UserError("give either the file of a cloud, or --dataset with --root")
    far, near, margin = arguments.far, arguments.near, arguments.margin
    if near < 0 or (far is not None and far <= near) or (margin is not None and not margin > 0):
        raise UserError("--near must be >= 0, --far above it, and --margin above 0 metres")
    turn, up = None, arguments.up or "z"
    if arguments.dataset is not None:
        scene, frames, turn, unit_m, usual = _of_dataset(arguments)
    else:
        usual = VisibilityConfig.depth_tolerance_m
        unit_m = UNITS_M[arguments.unit or "metre"]
        scene, frames = _of_cloud(arguments, unit_m, shown)
        if arguments.cameras is None:
            up = arguments.up or "-y"
    return CheckSpec(
        scene=_told_points(scene, shown),
        frames=frames,
        out=arguments.out,
        count=arguments.views,
        visibility=VisibilityConfig(
            near_m=near,
            far_m=far,
            depth_tolerance_m=usual if margin is None else margin,
            occlusion=arguments.occlusion,
        ),
        up=up,
        turn=turn,
        unit_m=unit_m,
        units=UNITS_M,
        progress=shown,
    )


def _of_dataset(
    arguments: argparse.Namespace,
) -> tuple[Scene, Sequence[Frame], NDArray[np.float64] | None, float | None, float]:
    """A scene, its frames, how its dataset turned both, and metres per unit, where it says these; the margin."""
    from typing import cast

    from dinomed3d.runtime.errors import UserError
    from pointseg.config.presets import RECIPES, images_of
    from pointseg.datasets import open_dataset
    from pointseg.datasets.axes import turn_of

    if arguments.cameras is not None or arguments.images is not None:
        raise UserError("--cameras, --images: are for the file of a cloud; a dataset has its own")
    if arguments.unit is not None:
        raise UserError(
            "--unit: is for the file of a cloud; say that of a dataset in its dataset.yaml ('unit')"
        )
    dataset = open_dataset(
        arguments.dataset, arguments.root, config=arguments.config, labelled=False
    )
    if not hasattr(dataset, "frames"):
        raise UserError(f"--dataset {arguments.dataset}: has no images")
    images = images_of(fitted(RECIPES[arguments.dataset], dataset), DEFAULT)
    tolerance_m = images.visibility.depth_tolerance_m
    split = arguments.split or dataset.splits()[0]
    names = dataset.scenes(split) if arguments.scene is None else (arguments.scene,)
    for name in names:
        frames = cast("ProvidesFrames", dataset).frames(split, name)
        if frames:
            description = getattr(dataset, "description", None)
            if description is None:
                return dataset.load(split, name), frames, None, None, tolerance_m
            turn = turn_of(description.up)
            return dataset.load(split, name), frames, turn, description.unit_m, tolerance_m
    which = f"scene {split}/{names[0]}" if len(names) == 1 else f"no scene of the split {split}"
    raise UserError(f"{dataset.name}: {which} has {'no ' if len(names) == 1 else ''}images")


def _of_cloud(
    arguments: argparse.Namespace, unit_m: float, shown: Bar
) -> tuple[Scene, Sequence[Frame]]:
    """A cloud and its frames, in metres."""
    import numpy as np

    from dinomed3d.runtime.errors import UserError
    from pointseg.datasets.axes import upright
    from pointseg.files import read_cloud
    from pointseg.images.readers.frame import transform_frame

    for option in ("root", "config", "split", "scene"):
        if getattr(arguments, option) is not None:
            raise UserError(f"--{option}: is for --dataset")
    path, cameras = arguments.cloud, arguments.cameras
    frames: Sequence[Frame]
    if cameras is None:
        if path.suffix.lower() != ".pcd":
            raise UserError(
                f"{path}: say where its images are: --cameras with a manifest, or with a folder of COLMAP's "
                "text files; only an organised .pcd is its own image"
            )
        from pointseg.images.readers.organised import organised_frame

        frames = (organised_frame(path, unit_m=unit_m),)
        shown.say(
            "the camera is the one that fits the points: figures show the file, not a calibration"
        )
    elif cameras.is_dir():
        from pointseg.images.readers.colmap import read_colmap

        frames = read_colmap(cameras, arguments.images or cameras.parent / "images")
    else:
        from pointseg.images.readers.manifest import read_manifest

        frames = read_manifest(cameras)
    still = np.eye(3), np.zeros(3)
    return (
        upright(read_cloud(path), unit_m=unit_m),
        [transform_frame(frame, *still, scale=unit_m) for frame in frames],
    )


def _told_points(scene: Scene, shown: Bar) -> Scene:
    """The points that were measured: neither NaN nor a scanner's mark for no return."""
    import numpy as np

    finite = np.isfinite(scene.coord).all(1)
    nowhere = np.asarray(finite & ~(scene.coord + scene.origin).any(1))
    kept = np.ones(len(scene), bool)
    for lost, what in ((~finite, "have no position"), (nowhere, "lie at 0, 0, 0: no returns")):
        if lost.sum() > (lost is nowhere):  # one point may well be there
            shown.say(f"{lost.sum()} of {len(scene)} points are left out: they {what}")
            kept &= ~lost
    return scene if kept.all() else scene.select(kept)


def _table(found: CameraCheck) -> str:
    """A line per view; in brackets the same with the pose inverted, and with pixels shuffled."""
    from pointseg.images.calibration.agreement import Agreement
    from pointseg.images.calibration.pose_conventions import INVERTED

    def told(view: Agreement | None, name: str, digits: int) -> str:
        value = None if view is None else getattr(view, name)
        return "-" if value is None else f"{value:.{digits}f}"

    rows = [
        ("", "", "", "depth off, m", "colour off, of 255", "lower is nearer"),
        ("view", "inside", "visible", "(inverted)", "(inverted, chance)", "(inverted)"),
    ]
    for view in found.views:
        own, other = view.stated, view.others.get(INVERTED)
        colors = f"{told(other, 'color_error', 1)}, {told(own, 'chance_color_error', 1)}"
        rows.append((
            view.name if len(view.name) <= 28 else f"...{view.name[-25:]}",
            f"{own.inside / own.points:.1%}",
            f"{own.visible / own.points:.1%}",
            f"{told(own, 'depth_error_m', 3)} ({told(other, 'depth_error_m', 3)})",
            f"{told(own, 'color_error', 1)} ({colors})",
            f"{told(own, 'ground_correlation', 2)} ({told(other, 'ground_correlation', 2)})",
        ))  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True)),
            ]
        ).rstrip()
        for row in rows
    )


def _run(arguments: argparse.Namespace, shown: Bar) -> int:
    from pointseg.images.calibration.check import check_cameras

    spec = _spec(arguments, shown)
    found = check_cameras(spec)
    shown.close()
    print(_table(found))
    more = (
        "" if arguments.views >= found.showing else f"; {arguments.views} were looked at (--views)"
    )
    print(f"{found.showing} of {len(spec.frames)} images show the scene{more}")
    print(f"{found.inside:.1%} of the points lie in at least one image, {found.seen:.1%} are seen")
    if found.pose_check.alternative is None:
        reason = found.pose_check.reason
        print(
            f"poses: fine as stated; {reason}" if reason else
            "poses: neither depth maps, nor colours of points, nor ground below upright cameras tell whether they "
            "are right: look at the pictures"
        )  # fmt: skip
    for issue in found.issues:
        print(f"{'note' if issue.note else 'problem'}: {issue}")
    print(f"look at {arguments.out / 'cloud.png'} and {arguments.out / 'views'}")
    return int(arguments.strict and not all(issue.note for issue in found.issues))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)

    def run() -> int:
        with bar() as shown:
            return _run(arguments, shown)

    return run_command(NAME, run)


if __name__ == "__main__":
    sys.exit(main())
