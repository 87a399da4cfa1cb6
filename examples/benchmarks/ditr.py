"""DITR and D-DITR where some classes differ in images only: rooms with textures, on a CPU, no data needed.

    python examples/benchmarks/ditr.py --work WORK

1. Rooms are rendered (`textured_rooms.py`): clouds, and posed RGB-D views.
2. A small encoder, in place of a pretrained foundation model, learns from the images and labels of separate
   rooms (`toy_encoder.py`).
3. DITR and D-DITR are compared with networks without images (`ditr_methods.py`) on other rooms; "few labels"
   are those of 5 % of the training rooms.

WORK/results.json has all numbers, WORK/pictures has rooms and features as colours.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import toy_encoder
from ditr_methods import Bench, show
from PIL import Image
from textured_rooms import NAMES, SIZE, TexturedRooms

from pointseg.config.presets import recipe_for
from pointseg.config.serialization import override
from pointseg.images.config import ImageConfig
from pointseg.images.visibility import VisibilityConfig

CHANGES = ("voxel_m=0.08", "batch_size=2", "evaluations=1")


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """Amounts of data and lengths of training."""

    rooms: tuple[int, int, int, int] = (40, 8, 16, 40)
    """Rooms to train, validate and test on, and others for the encoder."""
    views: int = 8
    points: int = 20_000
    encoder_steps: int = 2000
    epochs: int = 16
    distil_epochs: int = 40
    few_epochs: int = 100
    labelled: int = 2
    """Training rooms whose labels are used where labels are few: 5 %."""
    backbone: str = "pointnext"
    seeds: int = 3


TINY = Amounts(
    rooms=(2, 1, 1, 1), views=2, points=1500, encoder_steps=3, epochs=1, distil_epochs=1, few_epochs=1,
    labelled=1, seeds=1,
)  # fmt: skip


def make_encoder(data: TexturedRooms, amounts: Amounts, out: Path) -> dict[str, Any]:
    """Train the encoder and write it to ``out``; the accuracy of a linear layer on patches of validation rooms."""

    def shots(split: str) -> tuple[Any, Any]:
        taken = [shot for name in data.scenes(split) for shot in data.shots(split, name)]
        return np.stack([s.image for s in taken]), np.stack([s.segment for s in taken])

    began = time.monotonic()
    images, segments = shots("other")
    encoder = toy_encoder.pretrain(images, segments, steps=amounts.encoder_steps, seed=0, log=print)
    toy_encoder.save(encoder, out)
    minutes = (time.monotonic() - began) / 60
    learn, test = (toy_encoder.labelled_patches(encoder, *shots(s)) for s in ("other", "val"))
    accuracy = toy_encoder.linear_probe(learn, test, classes=len(NAMES))
    return {"minutes": minutes, "patch_accuracy": accuracy}


def draw_rooms(data: TexturedRooms, path: Path) -> None:
    """Draw images of the first two training rooms, with the classes below."""
    rows = []
    for name in data.scenes("train")[:2]:
        shots = data.shots("train", name)[:4]
        rows.append(np.concatenate([shot.image for shot in shots], axis=1))
        rows.append(np.concatenate([data.classes.colors[shot.segment] for shot in shots], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def benchmark(amounts: Amounts, work: Path) -> None:
    data = TexturedRooms(rooms=amounts.rooms, views=amounts.views, points=amounts.points)
    began = time.monotonic()
    draw_rooms(data, work / "pictures" / "rooms.png")
    encoder = make_encoder(data, amounts, work / "encoder.safetensors")
    print(f"patch accuracy of a linear layer on the encoder: {encoder['patch_accuracy']:.3f}")
    name, config = toy_encoder.NAME, toy_encoder.CONFIG
    images = ImageConfig(
        encoder=name,
        encoder_config=config,
        size=SIZE,
        views=amounts.views,
        visibility=VisibilityConfig(depth_tolerance_m=0.05),
        fuse="mean",
    )
    recipe = replace(recipe_for("synthetic", amounts.backbone, "small"), dataset=data.name)
    bench = Bench(
        data=data,
        recipe=override(recipe, CHANGES),
        images=images,
        work=work,
        epochs=amounts.epochs,
        distil_epochs=amounts.distil_epochs,
        few_epochs=amounts.few_epochs,
        labelled=amounts.labelled,
    )
    bench.encode(work / "encoder.safetensors")
    results = bench.seeds(amounts.seeds, {"amounts": asdict(amounts), "encoder": encoder})
    minutes = (time.monotonic() - began) / 60
    print(f"\n{show(results, ('all', *data.classes.groups))}\n\n{minutes:.0f} minutes in total")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, help="folder for all output (default: a temporary one)"
    )
    parser.add_argument("--backbone", default=Amounts.backbone, help="ptv3, minkunet or pointnext")
    parser.add_argument("--seeds", type=int, default=Amounts.seeds)
    parser.add_argument(
        "--tiny", action="store_true", help="everything tiny: a test of this script"
    )
    args = parser.parse_args()
    amounts = TINY if args.tiny else replace(Amounts(), seeds=args.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        benchmark(replace(amounts, backbone=args.backbone), work)


if __name__ == "__main__":
    main()
