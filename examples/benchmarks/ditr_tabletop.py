"""DITR and D-DITR on real RGB-D scenes: table, box, cylinder; 16 scenes to train on, 8 to test.

    python examples/benchmarks/ditr_tabletop.py --data FOLDER --work WORK

A small encoder, in place of a pretrained foundation model, learns from the 16 training images without labels
(`toy_encoder.py`). Then, for every seed, DITR and D-DITR are compared with networks without images
(`ditr_methods.py`); "few labels" are those of 2 scenes. The clouds have colours, so images add only the
surroundings of a point.

FOLDER has `train/*.pcd` and `test/*.pcd`; WORK/results.json gets all numbers. `--tiny` makes up the clouds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import toy_encoder
from ditr_methods import Bench, show
from numpy.typing import NDArray
from PIL import Image
from real_clouds import TABLETOP, made_up_scenes

from pointseg.config.folder_recipe import fit_to_dataset
from pointseg.config.presets import images_for, recipe_for
from pointseg.config.serialization import override
from pointseg.datasets.folder.dataset import Folder
from pointseg.images.visibility import VisibilityConfig

SIZE = (240, 320)
CHANGES = (
    "max_points=20000", "batch_size=2", "evaluations=1", "augmentation.elastic_probability=0",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Lengths of training, and how many scenes have labels where labels are few."""

    encoder_steps: int = 1000
    epochs: int = 30
    distil_epochs: int = 60
    few_epochs: int = 120
    labelled: int = 2
    backbone: str = "pointnext"
    seeds: int = 3


TINY = Amounts(encoder_steps=3, epochs=1, distil_epochs=1, few_epochs=1, seeds=1)


def training_images(data: Folder) -> NDArray[np.uint8]:
    """(M, H, W, 3) images at the encoder's size."""
    found = []
    for name in data.scenes("train"):
        for frame in data.frames("train", name):
            image = Image.fromarray(frame.read_image()).resize(
                SIZE[::-1], Image.Resampling.BILINEAR
            )
            found.append(np.asarray(image))
    return np.stack(found)


def benchmark(amounts: Amounts, root: Path, work: Path) -> None:
    data, began = Folder(root, TABLETOP), time.monotonic()
    weights, name = work / "encoder.safetensors", toy_encoder.NAME
    work.mkdir(parents=True, exist_ok=True)
    encoder = toy_encoder.pretrain(
        training_images(data), None, steps=amounts.encoder_steps, seed=0, log=print
    )
    toy_encoder.save(encoder, weights)
    images = replace(
        images_for("folder", name),
        encoder_config=toy_encoder.CONFIG,
        size=SIZE,
        visibility=VisibilityConfig(depth_tolerance_m=0.02),
        fuse="mean",
    )
    recipe = override(
        fit_to_dataset(recipe_for("folder", amounts.backbone, "small"), data), CHANGES
    )
    bench = Bench(
        data=data,
        recipe=recipe,
        images=images,
        work=work,
        epochs=amounts.epochs,
        distil_epochs=amounts.distil_epochs,
        few_epochs=amounts.few_epochs,
        labelled=amounts.labelled,
    )
    bench.encode(weights)
    results = bench.seeds(amounts.seeds, {"amounts": asdict(amounts)})
    minutes = (time.monotonic() - began) / 60
    print(f"\n{show(results, ('all', *data.classes.names))}\n\n{minutes:.0f} minutes in total")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of train/*.pcd and test/*.pcd")
    parser.add_argument(
        "--work", type=Path, help="folder for all output (default: a temporary one)"
    )
    parser.add_argument("--backbone", default=Amounts.backbone, help="ptv3, minkunet or pointnext")
    parser.add_argument("--seeds", type=int, default=Amounts.seeds)
    parser.add_argument("--tiny", action="store_true", help="made-up clouds: a test of this script")
    args = parser.parse_args()
    if (args.data is None) != args.tiny:
        parser.error("give --data FOLDER, or --tiny")
    amounts = TINY if args.tiny else replace(Amounts(), seeds=args.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        work, data = (args.work or Path(temporary)).resolve(), args.data
        if args.tiny:
            data = Path(temporary) / "made-up"
            made_up_scenes(data)
        benchmark(replace(amounts, backbone=args.backbone), data.resolve(), work)


if __name__ == "__main__":
    main()
