"""DITR with DINOv2 where some classes differ in images only: rooms with textures made by rule, on a CPU.

    python examples/benchmarks/ditr.py --weights dinov2_vits14.safetensors --work WORK

1. Rooms are rendered (`textured_rooms.py`): clouds, and posed RGB-D views.
2. DINOv2 ViT-S/14, which has seen neither these rooms nor their labels, encodes the images once.
3. DITR is compared with the same network without images, and with the colours of the pixels in place of the
   features (`ditr_methods.py`): the colours show textures as well, but must be understood from single pixels.

Every run has a file in WORK/runs, so that the same command goes on where it was interrupted; WORK/table.md has the
scores, WORK/pictures some rooms. `--tiny` takes random weights and tiny amounts.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from ditr_data import InMemory
from ditr_encoders import PixelColors
from ditr_methods import COLORS, DINO, Arm, Bench
from ditr_table import Columns, show
from PIL import Image
from textured_rooms import DEPTH_TOLERANCE_M, TexturedRooms

from pointseg.config.presets import recipe_for
from pointseg.config.serialization import override
from pointseg.images.config import ImageConfig
from pointseg.images.features.encoder import RANDOM, open_encoder
from pointseg.images.visibility import VisibilityConfig

ENCODER = "vit_small_patch14_dinov2"
CHANGES = ("voxel_m=0.08", "batch_size=2", "evaluations=1")


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Amounts of data and lengths of training."""

    rooms: tuple[int, int, int] = (16, 1, 6)
    """Rooms to train, validate and test on."""
    views: int = 6
    points: int = 20_000
    size: tuple[int, int] = (336, 448)
    """Of the images, enlarged to whole patches of the encoder."""
    steps: int = 128
    backbone: str = "pointnext"
    seeds: int = 3


TINY = Amounts(rooms=(2, 1, 1), views=2, points=1500, size=(28, 42), steps=1, seeds=1)
TINY_ENCODER = {"embed_dim": 12, "depth": 1, "num_heads": 2}

PLAIN = Arm(name="without images")
DITR = Arm(name="DITR", source=DINO)
PIXELS = Arm(name="DITR, colours of pixels", source=COLORS)
ARMS = (PLAIN, DITR, PIXELS)
PAIRS = ((DITR, PLAIN), (PIXELS, PLAIN), (DITR, PIXELS))


def draw_rooms(data: TexturedRooms, path: Path) -> None:
    """Draw images of the first two training rooms, with the classes below."""
    rows = []
    for name in data.scenes("train")[:2]:
        shots = data.shots("train", name)[:4]
        rows.append(np.concatenate([shot.image for shot in shots], axis=1))
        rows.append(np.concatenate([data.classes.colors[shot.segment] for shot in shots], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def open_bench(amounts: Amounts, weights: str, work: Path) -> Bench:
    """Rooms, recipe and images of all arms, with the features of all images encoded."""
    data = TexturedRooms(rooms=amounts.rooms, views=amounts.views, points=amounts.points)
    draw_rooms(data, work / "pictures" / "rooms.png")
    recipe = replace(recipe_for("synthetic", amounts.backbone, "small"), dataset=data.name)
    bench = Bench(
        data=InMemory(data),
        recipe=override(recipe, CHANGES),
        images=ImageConfig(
            encoder=ENCODER,
            size=amounts.size,
            views=amounts.views,
            visibility=VisibilityConfig(depth_tolerance_m=DEPTH_TOLERANCE_M),
            fuse="mean",
            sample="bilinear",
        ),
        work=work,
        steps=amounts.steps,
        distil_steps=amounts.steps,
        labelled=len(data.scenes("train")),
    )
    config = TINY_ENCODER if weights == RANDOM else {}
    bench.encode(DINO, open_encoder(ENCODER, weights, config))
    bench.encode(COLORS, PixelColors())
    return bench


def benchmark(bench: Bench, seeds: int) -> None:
    """Run what is missing; the table is written after every run."""
    groups = bench.data.classes.groups
    columns: Columns = {
        **{
            name: lambda confusion, rows=rows: confusion.miou(rows) for name, rows in groups.items()
        },
        "all": lambda confusion: confusion.miou(),
    }
    for seed in range(seeds):
        for arm in ARMS:
            minutes = bench.run(arm, seed)["minutes"]
            text = show(bench.finished(ARMS, seeds), ARMS, columns, PAIRS)
            (bench.work / "table.md").write_text(text + "\n")
            print(f"seed {seed}, {arm.name}: {minutes:.1f} min", flush=True)
    print(f"\n{text}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", help="file of DINOv2 ViT-S/14")
    parser.add_argument(
        "--work", type=Path, help="folder for all output (default: a temporary one)"
    )
    parser.add_argument("--backbone", default=Amounts.backbone, help="ptv3, minkunet or pointnext")
    parser.add_argument("--seeds", type=int, default=Amounts.seeds)
    parser.add_argument(
        "--tiny", action="store_true", help="everything tiny: a test of this script"
    )
    args = parser.parse_args()
    if (args.weights is None) != args.tiny:
        parser.error("give --weights FILE, or --tiny")
    amounts = TINY if args.tiny else replace(Amounts(), seeds=args.seeds)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        amounts = replace(amounts, backbone=args.backbone)
        benchmark(open_bench(amounts, args.weights or RANDOM, work), amounts.seeds)


if __name__ == "__main__":
    main()
