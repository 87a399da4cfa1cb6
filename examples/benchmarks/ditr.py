"""DITR and D-DITR where only images tell some classes: rooms with textures, from nothing, on a CPU.

    python examples/benchmarks/ditr.py --work WORK

1. Rooms are rendered (`textured_rooms.py`): clouds, and posed RGB-D views.
2. A small encoder learns from the images of rooms of its own (`textured_encoder.py`). It stands for a
   foundation model: no pretrained weights are at hand, and none of the rooms below taught it.
3. For every seed, with one 3D network and one recipe: without images; with them (DITR); distilled from
   them without labels (D-DITR), then tuned on the labels of 5 % of the training rooms; and from scratch
   on the same rooms. Nothing is chosen by looking at scores: models are tested as their last step left
   them, on rooms that nothing else has seen. The labelled rooms are drawn anew for every seed, until
   each class is in one of them.

WORK/results.json holds all numbers, WORK/pictures rooms, and features as colours.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import textured_encoder
from PIL import Image
from textured_rooms import NAMES, TexturedRooms
from textured_views import SIZE

from pointseg.engine.distillation import Distillation
from pointseg.engine.encoders import cached_for
from pointseg.engine.feature_showcase import show_features
from pointseg.engine.initial import initial_weights
from pointseg.engine.recipe import Recipe, override
from pointseg.engine.recipes import recipe_for
from pointseg.engine.segmentation import Segmentation
from pointseg.engine.test import ScoreSpec, score
from pointseg.engine.train import TrainSpec, train
from pointseg.images.encoding import open_encoder
from pointseg.images.filling import CacheSpec, cache_features
from pointseg.images.recipe import ImageRecipe

CHANGES = ("voxel_m=0.08", "batch_size=2", "evaluations=1")
METHODS = ("without images", "DITR", "5 % of labels", "5 % of labels, D-DITR")
ROWS = ("all", "alike", "shaped")


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


class FewLabels:
    """A dataset of which some training scenes have labels, and the others are not looked at."""

    def __init__(self, whole: TexturedRooms, scenes: Sequence[str]) -> None:
        self.whole, self.few = whole, tuple(scenes)
        self.name, self.classes, self.fields = whole.name, whole.classes, whole.fields
        self.splits, self.load = whole.splits, whole.load

    def scenes(self, split: str) -> tuple[str, ...]:
        """See Dataset.scenes."""
        return self.few if split == "train" else self.whole.scenes(split)


def few_labels(data: TexturedRooms, count: int, seed: int) -> FewLabels:
    """So many rooms, drawn until each class that the training rooms have is in one of them."""
    scenes = data.scenes("train")
    there = {name: set(data.load("train", name)["segment"].tolist()) for name in scenes}
    every = set().union(*there.values())
    rng = np.random.default_rng(seed)
    best: tuple[str, ...] = ()
    for _ in range(1000):
        drawn = tuple(rng.permutation(scenes)[:count].tolist())
        if not best or _classes(there, drawn) > _classes(there, best):
            best = drawn
        if _classes(there, best) == len(every):
            break
    return FewLabels(data, best)


def _classes(there: dict[str, set[int]], names: Sequence[str]) -> int:
    return len(set().union(*(there[name] for name in names)))


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


@dataclass(frozen=True)
class Bench:
    """What all runs share."""

    data: TexturedRooms
    plan: Plan
    images: ImageRecipe
    work: Path

    def recipe(self, epochs: int) -> Recipe:
        """The same for all methods, but for how often the scenes are seen."""
        recipe = replace(
            recipe_for("synthetic", self.plan.backbone, "small"), dataset=self.data.name
        )
        return override(recipe, [*CHANGES, f"epochs={epochs}"])

    def run(
        self,
        name: str,
        recipe: Recipe,
        seed: int,
        *,
        few: FewLabels | None = None,
        init: Path | None = None,
        distil: bool = False,
    ) -> Path:
        """Train; the last checkpoint."""
        cache, images = cached_for(self.images, self.work / "features")
        recipe = replace(recipe, images=None if recipe.images is None else images)
        out = self.work / f"seed{seed}" / name
        data: Any = few or self.data
        objective: Any = Distillation(recipe, None) if distil else Segmentation(data, recipe)
        done = train(
            TrainSpec(
                dataset=data,
                recipe=recipe,
                out=out,
                objective=objective,
                cache=cache if recipe.images else None,
                init=initial_weights(init, NAMES, recipe) if init else None,
                seed=seed,
                log=lambda line: None,
            )
        )
        if distil:
            show_features(done.last, data, recipe, objective, self.work, cache=cache)
        return done.last

    def test(self, model: Path, *, images: bool) -> dict[str, float]:
        """MIoU of every point of the test rooms: of all classes, of those alike, of those with a shape."""
        found = score(
            ScoreSpec(
                model=model,
                dataset=self.data,
                out=model.parent / "test",
                splits=("test",),
                image_cache=self.work / "features" if images else None,
                overwrite=True,
                log=lambda line: None,
            )
        )
        each = found.metrics["test_point_iou"]
        groups = {"all": range(len(NAMES)), **self.data.classes.groups}
        scores = {
            group: statistics.fmean(each[NAMES[index]] or 0.0 for index in members)
            for group, members in groups.items()
        }
        return scores | {name: each[name] or 0.0 for name in NAMES}

    def seed(self, seed: int) -> dict[str, dict[str, float]]:
        """Scores of each method."""
        plan, few = self.plan, few_labels(self.data, self.plan.labelled, seed)
        plain, little = self.recipe(plan.epochs), self.recipe(plan.few_epochs)
        seeing = replace(plain, images=self.images)
        steps: dict[str, Callable[[], Path]] = {
            METHODS[0]: lambda: self.run("plain", plain, seed),
            METHODS[1]: lambda: self.run("ditr", seeing, seed),
            METHODS[2]: lambda: self.run("few", little, seed, few=few),
            METHODS[3]: lambda: self.run("few-distilled", little, seed, few=few, init=student()),
        }

        def student() -> Path:
            learning = replace(self.recipe(plan.distil_epochs), images=self.images)
            return self.run("distilled", learning, seed, distil=True)

        found = {}
        for method, step in steps.items():
            began = time.monotonic()
            model = step()
            minutes = (time.monotonic() - began) / 60
            found[method] = self.test(model, images=method == "DITR") | {"minutes": minutes}
            told = ", ".join(
                f"{name} {100 * value:.1f}" for name, value in found[method].items() if name in ROWS
            )
            print(f"seed {seed}, {method}: {told} ({minutes:.1f} min)", flush=True)
        return found


def show(results: Sequence[dict[str, dict[str, float]]]) -> str:
    """The table: mean and spread over seeds, and what images and distillation bring, seed by seed."""
    rows = [["", *(f"mIoU, {name}" for name in ROWS), "training, min"], ["---"] * (len(ROWS) + 2)]
    for method in METHODS:
        cells = [_spread([100 * seed[method][row] for seed in results]) for row in ROWS]
        rows.append(
            [method, *cells, f"{statistics.fmean(s[method]['minutes'] for s in results):.1f}"]
        )
    for one, other in (METHODS[1::-1], METHODS[:1:-1]):
        cells = [
            _spread([100 * (seed[one][row] - seed[other][row]) for seed in results]) for row in ROWS
        ]
        rows.append([f"{one} over {other}", *cells, ""])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.1f} ± {spread:.1f}"


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
    images = ImageRecipe(
        encoder=name, encoder_config=config, size=SIZE, views=plan.views, margin_m=0.05, fuse="mean"
    )
    encoder = open_encoder(name, work / "encoder.safetensors", config)
    splits = ("train", "val", "test")
    cache_features(
        CacheSpec(
            dataset=data, encoder=encoder, name=name, size=SIZE, out=work / "features", views=None,
            splits=splits, log=lambda line: None,
        )
    )  # fmt: skip
    bench, results = Bench(data, plan, images, work), []
    for seed in range(plan.seeds):
        results.append(bench.seed(seed))
        content = {"plan": asdict(plan), "encoder": told, "seeds": results}
        (work / "results.json").write_text(json.dumps(content, indent=1))
    print(f"\n{show(results)}\n\n{(time.monotonic() - began) / 60:.0f} minutes altogether")


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
