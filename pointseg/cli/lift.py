"""``pointseg-lift``: parse, build one LiftSpec, lift, print one line. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import choose_device
from dinomed3d.runtime.messages.terminal_text import one_line
from pointseg.cli.arguments import add_device, at_least
from pointseg.cli.image_arguments import add_encoder, add_visibility, visibility
from pointseg.cli.progress import Phases
from pointseg.conventions import LIFT_FUSES, SAMPLES, UNITS_M, UP_AXES

if TYPE_CHECKING:
    from dinomed3d.lifting import Encoder
    from pointseg.lifting.spec import LiftSpec

NAME = "pointseg-lift"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-lift cloud.ply --cameras cameras.json --encoder vit_small_patch14_dinov2"
        " --weights hub -o features.npz",
        description="Lifts features of posed images onto the points of a cloud; nothing is trained and no labels are "
        "needed. OUT's ending says what is written: features (.npz, .safetensors), or the cloud in the colours of "
        "their principal components, or with --pick of the similarity to a point (.ply, .las, .laz, .pcd, ...). A "
        "record (.json) and a picture (.png) are written next to it.",
    )
    parser.add_argument("cloud", type=Path, metavar="CLOUD", help="the file of the cloud")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="OUT", help="the file to write"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUT")
    parser.add_argument("--no-picture", action="store_true", help="draw no picture")
    _add_images(parser.add_argument_group("images"))
    _add_features(parser.add_argument_group("features"))
    add_visibility(parser.add_argument_group("visibility"), tolerance="0.2")
    add_device(parser)
    return parser


def _add_images(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--cameras", metavar="WHERE",
        help="cameras.json, transforms.json (nerfstudio, Polycam), Metashape's .xml, the folder of a COLMAP model, or "
        "'organised' for an "
        "RGB-D .pcd that contains its image (the default for .pcd)",
    )  # fmt: skip
    group.add_argument(
        "--images", metavar="DIR",
        help="folder of the images (default: 'images' next to a COLMAP model, or where the file says)",
    )  # fmt: skip
    group.add_argument(
        "--max-views", type=at_least(1), metavar="N",
        help="maximum number of images, evenly spread over those that have points in view (default: all)",
    )  # fmt: skip
    group.add_argument(
        "--image-size", type=at_least(1), nargs=2, metavar=("H", "W"),
        help="size to which images are resized, multiples of the encoder's patch (default: about their own; larger "
        "ones are reduced to 480,000 pixels)",
    )  # fmt: skip
    group.add_argument(
        "--unit",
        choices=tuple(UNITS_M),
        help="unit of coordinates and poses (default: as a LAS file says, else metre)",
    )
    group.add_argument(
        "--up", choices=UP_AXES,
        help="vertical axis in pictures; --up=-y for camera coordinates (default: z; -y for an organised cloud)",
    )  # fmt: skip


def _add_features(group: argparse._ArgumentGroup) -> None:
    add_encoder(group)
    group.add_argument(
        "--weights", metavar="FILE",
        help="weights of the encoder: a file or folder, 'hub' (download), or 'none' (random, for tests)",
    )  # fmt: skip
    group.add_argument(
        "--fuse", choices=LIFT_FUSES, default="mean",
        help="how the features of several views become one (default: mean)",
    )  # fmt: skip
    group.add_argument(
        "--sample", choices=SAMPLES, default="bilinear",
        help="how a feature map is read at a point: nearest patch, or bilinear (default)",
    )  # fmt: skip
    group.add_argument(
        "--per-view", action="store_true",
        help="write the features of each view and the points that it shows, instead of fused ones",
    )  # fmt: skip
    group.add_argument(
        "--dtype", choices=("float32", "float16"), default="float32",
        help="type of written features (default: float32)",
    )  # fmt: skip
    group.add_argument(
        "--pick", type=float, nargs="+", metavar="N",
        help="colour points by cosine similarity to this one: its row in the file, from 0, or x y z, for the nearest "
        "point",
    )  # fmt: skip


def _encoder(arguments: argparse.Namespace, device: str, progress: Phases) -> Encoder:
    from dinomed3d.lifting.missing_weights import POINTS, where_to_get_weights
    from pointseg.config.precision import encoder_dtype
    from pointseg.images.features.encoder import RANDOM, open_encoder

    if arguments.weights is None:
        raise UserError(
            f"--weights: give weights of {arguments.encoder}. "
            f"{where_to_get_weights(arguments.encoder, POINTS)}"
        )
    if arguments.weights == RANDOM:
        progress.say("random weights: pipeline test only, features are meaningless")
    dtype = encoder_dtype(arguments.precision, device)
    return open_encoder(arguments.encoder, arguments.weights, precision=dtype)


def _spec(arguments: argparse.Namespace, progress: Phases) -> LiftSpec:
    from pointseg.lifting.source import cameras_of
    from pointseg.lifting.spec import LiftSpec

    device = choose_device(arguments.device)
    rule = cameras_of(arguments.cloud, arguments.cameras, arguments.images)
    size = arguments.image_size
    return LiftSpec(
        cloud=arguments.cloud,
        out=arguments.out,
        cameras=rule,
        encoder=arguments.encoder,
        open_encoder=lambda: _encoder(arguments, device, progress),
        image_size=None if size is None else (size[0], size[1]),
        max_views=arguments.max_views,
        fuse=arguments.fuse,
        sample=arguments.sample,
        per_view=arguments.per_view,
        half=arguments.dtype == "float16",
        pick=None if arguments.pick is None else tuple(arguments.pick),
        visibility=visibility(arguments),
        unit_m=None if arguments.unit is None else UNITS_M[arguments.unit],
        up=arguments.up or ("-y" if rule.is_organised else "z"),
        picture=not arguments.no_picture,
        overwrite=arguments.overwrite,
        device=device,
        say=progress.say,
        phase=progress,
    )


def _run(arguments: argparse.Namespace) -> int:
    from pointseg.lifting.lift_cloud import lift_cloud

    with closing(Phases()) as progress:
        spec = _spec(arguments, progress)
        found = lift_cloud(spec)
    print(one_line(f"{spec.out}: {found}"))
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    return run_command(NAME, lambda: _run(arguments), results=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
