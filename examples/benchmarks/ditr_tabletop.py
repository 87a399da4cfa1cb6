"""DITR and D-DITR with DINOv2 on real RGB-D scenes: table, box, cylinder; 16 scenes to train on, 8 to test.

    python examples/benchmarks/ditr_tabletop.py --data FOLDER --weights dinov2_vits14.safetensors --work WORK

Every arm has the same small network, recipe and number of steps (`ditr_methods.py`). Images are 476 x 630 pixels;
features of DINOv2 ViT-S/14 are computed once and interpolated between patches. Controls of DITR: images of other
scenes, the encoder's own weights in another order, and the colours of the pixels. "2 scenes" are the only ones with
labels. The network of D-DITR needs no image to predict; after distillation it is trained at a lower rate.

FOLDER has `train/*.pcd` and `test/*.pcd`. Every run has a file in WORK/runs, so that the same command goes on where
it was interrupted; WORK/table.md is the table of all runs, WORK/pictures shows predictions. `--tune` tests on 4 of the
training scenes and trains on the 12 others: settings were chosen there. `--tiny` makes up clouds and weights.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from ditr_data import HeldOut, InMemory
from ditr_encoders import PixelColors, permuted
from ditr_methods import COLORS, DINO, DISTIL, PERMUTED, PROBE, Arm, Bench
from ditr_picture import draw_predictions
from ditr_table import Columns, iou_of, show
from real_clouds import TABLETOP, made_up_scenes

from pointseg.config.folder_recipe import fit_to_dataset
from pointseg.config.presets import images_for, recipe_for
from pointseg.config.serialization import override
from pointseg.datasets.folder.dataset import Folder
from pointseg.images.features.encoder import RANDOM, open_encoder
from pointseg.images.visibility import VisibilityConfig

ENCODER = "vit_small_patch14_dinov2"
HELD_OUT = ("learn6", "learn12", "learn36", "learn42")
KEPT = 1 / 6
"""Share of the points of training scenes, of which about 30 are in a voxel: fewer take less time to augment."""
CHANGES = (
    "max_points=20000", "batch_size=2", "evaluations=1", "augmentation.elastic_probability=0",
    "mix3d=0.8",  # as on ScanNet: without it, two labelled scenes teach their tables instead of their objects
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Sizes and lengths."""

    voxel_m: float = 0.015
    test_voxel_m: float = 0.0075
    """In tests one point of each voxel of this size is predicted, the others take its class."""
    steps: int = 160
    distil_steps: int = 640
    labelled: int = 2
    backbone: str = "pointnext"
    size: tuple[int, int] = (476, 630)
    """Of the images, in whole patches of the encoder."""
    seeds: int = 5


TINY = Amounts(steps=1, distil_steps=1, size=(28, 42), seeds=1)
TINY_ENCODER = {"embed_dim": 12, "depth": 1, "num_heads": 2}


PLAIN = Arm(name="without images")
DITR = Arm(name="DITR", source=DINO)
FEW = Arm(name="2 scenes", few=True)
FEW_DITR = Arm(name="2 scenes, DITR", source=DINO, few=True)
DISTILLED = Arm(name="distilled", source=DINO, kind=DISTIL, once=True, changes={"mix3d": 0})
FEW_DISTILLED = Arm(
    name="2 scenes, D-DITR", few=True, init=DISTILLED, changes={"optimizer.lr": 1e-4}
)
ARMS = (
    PLAIN,
    DITR,
    Arm(name="DITR, tested with images of other scenes", again=DITR, source=DINO),
    Arm(name="DITR, trained and tested with images of other scenes", source=DINO, others=True),
    Arm(name="DITR, permuted encoder", source=PERMUTED),
    Arm(name="DITR, colours of pixels", source=COLORS),
    Arm(name="linear probe on features", source=DINO, kind=PROBE),
    FEW,
    FEW_DITR,
    DISTILLED,
    FEW_DISTILLED,
    Arm(name="2 scenes, linear probe on features", source=DINO, kind=PROBE, few=True),
)
PAIRS = (
    (DITR, PLAIN),
    *((arm, DITR) for arm in ARMS[2:7]),
    (FEW_DITR, FEW),
    (FEW_DISTILLED, FEW),
)


def open_bench(amounts: Amounts, root: Path, weights: str, work: Path, *, tune: bool) -> Bench:
    """Recipe and images of all arms, with the features of all images encoded."""
    images = replace(
        images_for("folder", ENCODER),
        size=amounts.size,
        visibility=VisibilityConfig(depth_tolerance_m=0.02),
        fuse="mean",
        sample="bilinear",
    )
    folder = Folder(root, TABLETOP)
    recipe = fit_to_dataset(recipe_for("folder", amounts.backbone, "small"), folder)
    scales = (f"voxel_m={amounts.voxel_m}", f"test.prevoxel_m={amounts.test_voxel_m}")
    bench = Bench(
        data=InMemory(HeldOut(folder, HELD_OUT) if tune else folder, KEPT),
        recipe=replace(override(recipe, (*CHANGES, *scales)), test_splits=("val",)),
        images=images,
        work=work,
        steps=amounts.steps,
        distil_steps=amounts.distil_steps,
        labelled=amounts.labelled,
    )
    config = TINY_ENCODER if weights == RANDOM else {}
    bench.encode(DINO, open_encoder(ENCODER, weights, config))
    bench.encode(PERMUTED, permuted(open_encoder(ENCODER, weights, config)))
    bench.encode(COLORS, PixelColors())
    return bench


def benchmark(bench: Bench, seeds: int, arms: Sequence[Arm]) -> None:
    """Run what is missing, all arms of a seed before the next; the table is written after every run."""
    names = bench.data.classes.names
    columns: Columns = {
        "mean": lambda confusion: confusion.miou(),
        **{name: iou_of([row]) for row, name in enumerate(names)},
        "object against rest": iou_of([1, 2]),
    }
    for seed in range(seeds):
        for arm in arms:
            minutes = bench.run(arm, seed)["minutes"]
            text = show(bench.finished(ARMS, seeds), ARMS, columns, PAIRS)
            (bench.work / "table.md").write_text(text + "\n")
            print(f"seed {seed}, {arm.name}: {minutes:.1f} min", flush=True)
    print(f"\n{text}")
    draw(bench, arms)


def draw(bench: Bench, arms: Sequence[Arm]) -> None:
    """Draw predictions of seed 0 on three scenes into WORK/pictures/predictions.png."""
    split = bench.recipe.test_splits[0]
    drawn = [arm for arm in (PLAIN, DITR, FEW, FEW_DISTILLED) if arm in arms]
    found = {arm.name: bench.folder(arm, 0) / "test" for arm in drawn}
    scenes = bench.data.scenes(split)[::3]
    draw_predictions(bench.data, split, scenes, found, bench.work / "pictures" / "predictions.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of train/*.pcd and test/*.pcd")
    parser.add_argument("--weights", help="file of DINOv2 ViT-S/14")
    parser.add_argument(
        "--work", type=Path, help="folder for all output (default: a temporary one)"
    )
    parser.add_argument("--arms", help="numbers of the arms to run, as 0,1,7 (default: all)")
    parser.add_argument("--set", nargs="*", default=[], help="amounts, as steps=100")
    parser.add_argument("--tune", action="store_true", help="test on held-out training scenes")
    parser.add_argument("--tiny", action="store_true", help="a test of this script")
    args = parser.parse_args()
    if (args.data is None or args.weights is None) != args.tiny:
        parser.error("give --data FOLDER and --weights FILE, or --tiny")
    amounts = TINY if args.tiny else Amounts()
    given = dict(word.split("=", 1) for word in args.set)
    kinds = {name: type(getattr(amounts, name)) for name in given}
    amounts = replace(amounts, **{name: kinds[name](value) for name, value in given.items()})
    arms = ARMS if args.arms is None else [ARMS[int(n)] for n in args.arms.split(",")]
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work, data = (args.work or Path(temporary)).resolve(), args.data
        if args.tiny:
            data = Path(temporary) / "made-up"
            made_up_scenes(data)
        bench = open_bench(amounts, data.resolve(), args.weights or RANDOM, work, tune=args.tune)
        benchmark(bench, amounts.seeds, arms)


if __name__ == "__main__":
    main()
