"""DITR and D-DITR where only images tell some classes: rooms with textures, from nothing, on a CPU.

    python examples/benchmarks/ditr.py --work WORK

1. Rooms are rendered (`textured_rooms.py`): clouds, and posed RGB-D views.
2. A small encoder learns from the images and the labels of rooms of its own (`textured_encoder.py`). It
   stands for a foundation model: no pretrained weights are at hand, and none of the rooms below taught it.
3. DITR and D-DITR are held against networks without images (`ditr_methods.py`) on rooms that nothing else
   has seen; labels of 5 % of the training rooms are few.

WORK/results.json holds all numbers, WORK/pictures rooms, and features as colours.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import textured_encoder
from ditr_methods import Bench, show
from PIL import Image
from textured_rooms import NAMES, TexturedRooms
from textured_views import SIZE

from pointseg.config.presets import recipe_for
from pointseg.config.recipe import override
from pointseg.images.config import ImageConfig
from pointseg.images.visibility import VisibilityConfig

CHANGES = ("voxel_m=0.08", "batch_size=2", "evaluations=1")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much of everything."""

    rooms: tuple[int, int, int, int] = (40, 8, 16, 40)
    """To train, validate and test on; others, for the encoder."""
    views: int = 8
    points: int = 20_000
    encoder_steps: int = 2000
    epochs: int = 16
    distil_epochs: int = 40
    few_epochs: int = 100
    labelled: int = 2
    """Rooms whose labels are known, 5 % of those to train on."""
    backbone: str = "pointnext"
    seeds: int = 3


TINY = Plan(
    rooms=(2, 1, 1, 1), views=2, points=1500, encoder_steps=3, epochs=1, distil_epochs=1, few_epochs=1,
    labelled=1, seeds=1,
)  # fmt: skip


def make_encoder(data: TexturedRooms, plan: Plan, out: Path) -> dict[str, Any]:
    """Weights in ``out``; how many patches of the validation rooms a linear layer then names rightly."""

    def shots(split: str) -> tuple[Any, Any]:
        taken = [shot for name in data.scenes(split) for shot in data.shots(split, name)]
        return np.stack([s.image for s in taken]), np.stack([s.segment for s in taken])

    began = time.monotonic()
    images, segments = shots("other")
    encoder = textured_encoder.pretrain(
        images, segments, steps=plan.encoder_steps, seed=0, log=print
    )
    textured_encoder.save(encoder, out)
    minutes = (time.monotonic() - began) / 60
    learn, test = (textured_encoder.named_patches(encoder, *shots(s)) for s in ("other", "val"))
    right = textured_encoder.probe(learn, test, classes=len(NAMES))
    return {"minutes": minutes, "patches_named_rightly": right}


def draw_rooms(data: TexturedRooms, path: Path) -> None:
    """What two cameras of the first training rooms take, and the classes below."""
    rows = []
    for name in data.scenes("train")[:2]:
        shots = data.shots("train", name)[:4]
        rows.append(np.concatenate([shot.image for shot in shots], axis=1))
        rows.append(np.concatenate([data.classes.colors[shot.segment] for shot in shots], axis=1))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(path)


def benchmark(plan: Plan, work: Path) -> None:
    data = TexturedRooms(rooms=plan.rooms, views=plan.views, points=plan.points)
    began = time.monotonic()
    draw_rooms(data, work / "pictures" / "rooms.png")
    told = make_encoder(data, plan, work / "encoder.safetensors")
    print(
        f"a linear layer on the encoder names {told['patches_named_rightly']:.3f} of the patches rightly"
    )
    name, config = textured_encoder.NAME, textured_encoder.CONFIG
    images = ImageConfig(
        encoder=name,
        encoder_config=config,
        size=SIZE,
        views=plan.views,
        visibility=VisibilityConfig(depth_tolerance_m=0.05),
        fuse="mean",
    )
    recipe = replace(recipe_for("synthetic", plan.backbone, "small"), dataset=data.name)
    bench = Bench(
        data=data,
        recipe=override(recipe, CHANGES),
        images=images,
        work=work,
        epochs=plan.epochs,
        distil_epochs=plan.distil_epochs,
        few_epochs=plan.few_epochs,
        labelled=plan.labelled,
    )
    bench.encode(work / "encoder.safetensors")
    results = bench.seeds(plan.seeds, {"plan": asdict(plan), "encoder": told})
    minutes = (time.monotonic() - began) / 60
    print(f"\n{show(results, ('all', *data.classes.groups))}\n\n{minutes:.0f} minutes altogether")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, help="folder for everything written (default: none)")
    parser.add_argument("--backbone", default=Plan.backbone, help="ptv3, minkunet or pointnext")
    parser.add_argument("--seeds", type=int, default=Plan.seeds)
    parser.add_argument("--tiny", action="store_true", help="a few points, one pass, of no meaning")
    args = parser.parse_args()
    plan = TINY if args.tiny else replace(Plan(), seeds=args.seeds)
    with tempfile.TemporaryDirectory() as temporary:
        work = (args.work or Path(temporary)).resolve()
        benchmark(replace(plan, backbone=args.backbone), work)


if __name__ == "__main__":
    main()
