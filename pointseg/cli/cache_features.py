"""``pointseg-cache-features``: parse, build one CacheSpec, encode, print a table. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.commands.argument_parser import ArgumentParser
from dinomed3d.runtime.commands.json_output import add_json, json_alone, print_json
from dinomed3d.runtime.commands.run_command import run_command
from dinomed3d.runtime.hardware.device import choose_device
from dinomed3d.runtime.messages.terminal_text import lines_of
from pointseg.cli.arguments import add_data, add_device, at_least, number_or_all
from pointseg.cli.image_arguments import add_encoder
from pointseg.cli.progress import Bar, bar

if TYPE_CHECKING:
    from pointseg.loading.build_feature_cache import CacheResult, CacheSpec

NAME = "pointseg-cache-features"


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog=NAME,
        example="pointseg-cache-features --dataset scannet --root data/scannet"
        " --encoder vit_small_patch14_dinov2 --weights hub -o data/features",
        description="Encodes the images of a dataset once and caches their features (float16, one file per image) "
        "for --image-cache of pointseg-train and other commands. Prints how many bytes it will write before it "
        "starts. The same command again continues an interrupted run and encodes changed images again. Each "
        "encoder, set of weights and image size has its own folder in --out.",
    )
    add_data(parser)
    add_encoder(parser)
    parser.add_argument(
        "--weights", required=True, metavar="FILE",
        help="weights of the image encoder: a file or folder, 'hub' (download), or 'none' (random, for tests)",
    )  # fmt: skip
    parser.add_argument(
        "--image-size", type=at_least(1), nargs=2, metavar=("H", "W"),
        help="size to which images are resized, pixels (default: as in training with this dataset and encoder, "
        "such as 420 560 for scannet and patches of 14); the same for all datasets of one training",
    )  # fmt: skip
    parser.add_argument(
        "--tile", type=at_least(1), metavar="PX",
        help="encode larger images in overlapping tiles of this side, pixels (images.tile of training; default: as a "
        "whole)",
    )  # fmt: skip
    parser.add_argument(
        "--taps", type=int, nargs="+", default=[-1], metavar="BLOCK",
        help="blocks of the encoder that are read, 0 is the first and -1 the last (images.taps of training; default: "
        "-1)",
    )  # fmt: skip
    parser.add_argument(
        "--max-views", type=number_or_all, metavar="N",
        help="maximum number of views per scene, evenly spread, or 'all'; training draws its views from these "
        "(default: as many as it draws, such as 10 for scannet and all for nuscenes)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="folder of caches"
    )
    parser.add_argument(
        "--splits", nargs="+", metavar="NAME", help="splits to encode (default: all)"
    )
    parser.add_argument(
        "--batch", type=at_least(1), default=8, metavar="N", help="images at once (default: 8)"
    )
    add_device(parser, auto="float32")
    add_json(parser)
    return parser


def _spec(arguments: argparse.Namespace, progress: Bar) -> CacheSpec:
    import torch

    from pointseg.config.precision import choose_precision
    from pointseg.config.presets import images_for
    from pointseg.datasets import open_dataset
    from pointseg.images.features.encoder import RANDOM, open_encoder
    from pointseg.loading.build_feature_cache import CacheSpec

    device = choose_device(arguments.device)
    precision = "float32" if arguments.precision == "auto" else arguments.precision
    dtype = getattr(torch, choose_precision(precision, device))
    usual = images_for(arguments.dataset, arguments.encoder)
    dataset = open_dataset(
        arguments.dataset, arguments.root, config=arguments.config, labelled=False
    )
    if arguments.weights == RANDOM:
        progress.say("random weights: pipeline test only, features are meaningless")
    height, width = arguments.image_size or usual.size
    images = arguments.max_views
    images = usual.views if images is None else None if images == "all" else images
    limit = "all images" if images is None else f"up to {images} images"
    progress.say(f"{limit} of each scene, resized to {height} x {width} pixels")
    return CacheSpec(
        dataset=dataset,
        encoder=open_encoder(
            arguments.encoder,
            arguments.weights,
            precision=None if dtype is torch.float32 else dtype,
            taps=arguments.taps,
        ),
        name=arguments.encoder,
        size=(height, width),
        taps=tuple(arguments.taps),
        tile=arguments.tile,
        out=arguments.out,
        max_views=images,
        splits=None if arguments.splits is None else tuple(arguments.splits),
        batch=arguments.batch,
        device=device,
        log=progress.say,
        progress=progress,
    )


def _print(found: CacheResult) -> None:
    import pandas as pd

    from pointseg.loading.build_feature_cache import format_bytes

    table = pd.DataFrame([asdict(split) for split in found.splits])
    print(lines_of(table.to_string(index=False)))
    made = sum(split.made for split in found.splits)
    speed = f", {made / found.seconds:.2g} images/s" if made and found.seconds > 0 else ""
    print(
        f"{found.images:,} images of {found.channels} channels, "
        f"{format_bytes(found.images * found.bytes_per_image)} in {found.folder}{speed}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)

    def run() -> int:
        from pointseg.loading.build_feature_cache import cache_features

        with json_alone(arguments.json), bar() as progress:
            try:
                found = cache_features(_spec(arguments, progress))
            except KeyboardInterrupt:
                progress.say("encoded images are kept; the same command continues with the rest")
                raise
        if arguments.json:
            print_json("pointseg-cache-features-1", asdict(found))
        else:
            _print(found)
        return 0

    return run_command(NAME, run, results=arguments.out)


if __name__ == "__main__":
    sys.exit(main())
