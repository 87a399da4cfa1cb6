"""``pointseg-cache-features``: parse, make one CacheSpec, encode, print what is held. Heavy imports come late."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dinomed3d.runtime.device import DEVICES, choose_device
from pointseg.cli.command import add_data, at_least, run_command
from pointseg.cli.progress import Bar, bar

if TYPE_CHECKING:
    from pointseg.loading.build_feature_cache import Filled

NAME = "pointseg-cache-features"
ALL = "all"
PRECISIONS = ("float32", "bfloat16", "float16")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Encodes the images of a dataset once and keeps their features, in float16 and one file "
        "per image, for the --image-cache of pointseg-train and its siblings. Says how many bytes it will "
        "write before it begins. The same command again goes on where it was stopped, and encodes anew what "
        "has changed. Other weights, another encoder or another size have a folder of their own in --out.",
    )
    add_data(parser)
    parser.add_argument(
        "--encoder", default="vit_small_patch16_dinov3", metavar="NAME",
        help="as for training (default: vit_small_patch16_dinov3)",
    )  # fmt: skip
    parser.add_argument(
        "--weights", required=True, metavar="FILE",
        help="of the encoder: a file, a folder with one, hub, or none (random: for tests)",
    )  # fmt: skip
    parser.add_argument(
        "--size", type=at_least(1), nargs=2, metavar=("H", "W"),
        help="to which images are resized, pixels (default: as training does with this dataset and encoder, "
        "such as 480 640 for scannet and patches of 16; of several datasets as with the first)",
    )  # fmt: skip
    parser.add_argument(
        "--views", type=_views, metavar="N",
        help="images of one scene, evenly spread, or 'all'; training draws from these (default: as many as it "
        "draws, such as 10 for scannet and all for nuscenes); of several datasets in one --out the same",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR", help="where caches are kept"
    )
    parser.add_argument("--splits", nargs="+", metavar="NAME", help="(default: all of the dataset)")
    parser.add_argument(
        "--batch", type=at_least(1), default=8, metavar="N", help="images at once (default: 8)"
    )
    parser.add_argument("--device", choices=DEVICES, default="auto", help="(default: auto)")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="float32",
        help="in which the encoder computes; features are kept in float16 (default: float32)",
    )  # fmt: skip
    return parser


def _views(text: str) -> int | str:
    return ALL if text == ALL else at_least(1)(text)


_views.__name__ = "number of views"


def _run(arguments: argparse.Namespace, shown: Bar) -> int:
    import torch

    from dinomed3d.runtime.errors import UserError
    from pointseg.config.presets import images_for
    from pointseg.datasets import open_dataset
    from pointseg.images.features.encoder import open_encoder
    from pointseg.loading.build_feature_cache import CacheSpec, cache_features

    device = choose_device(arguments.device)
    if arguments.precision == "float16" and device == "cpu":
        raise UserError("--precision float16: a CPU encodes in float32 or bfloat16")
    precision: torch.dtype | None = {
        "float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16,
    }[arguments.precision]  # fmt: skip
    usual = images_for(arguments.dataset, arguments.encoder)
    dataset = open_dataset(
        arguments.dataset, arguments.root, config=arguments.config, labelled=False
    )
    if arguments.weights == "none":
        shown.say("random weights: features for tests, which say nothing about images")
    height, width = arguments.size or usual.size
    views = usual.views if arguments.views is None else arguments.views
    told = f"{ALL} images" if views in (None, ALL) else f"up to {views} images"
    shown.say(f"{told} of each scene, resized to {height} x {width} pixels")
    found = cache_features(
        CacheSpec(
            dataset=dataset,
            encoder=open_encoder(arguments.encoder, arguments.weights, precision=precision),
            name=arguments.encoder,
            size=(height, width),
            out=arguments.out,
            views=None if views == ALL else views,
            splits=None if arguments.splits is None else tuple(arguments.splits),
            batch=arguments.batch,
            device=device,
            log=shown.say,
            progress=shown,
        )
    )
    shown.close()
    _show(found)
    return 0


def _show(found: Filled) -> None:
    from pointseg.loading.build_feature_cache import told_bytes

    print(
        f"{'split':<12}{'scenes':>8}{'no images':>11}{'images':>9}{'kept':>8}{'made':>8}{'stale':>8}"
    )
    for split in found.splits:
        print(
            f"{split.split:<12}{split.scenes:>8}{split.without_images:>11}{split.kept + split.made:>9}"
            f"{split.kept:>8}{split.made:>8}{split.stale:>8}"
        )
    images = sum(split.kept + split.made for split in found.splits)
    made = sum(split.made for split in found.splits)
    speed = f", {made / found.seconds:.2g} images/s" if made and found.seconds > 0 else ""
    print(
        f"{images:,} images of {found.channels} channels, {told_bytes(images * found.bytes_per_image)} in "
        f"{found.folder}{speed}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    arguments = _parser().parse_args(argv)

    def run() -> int:
        with bar() as shown:
            try:
                return _run(arguments, shown)
            except KeyboardInterrupt:
                shown.say("what was encoded is kept; the same command goes on with the rest")
                raise

    return run_command(NAME, run)


if __name__ == "__main__":
    sys.exit(main())
