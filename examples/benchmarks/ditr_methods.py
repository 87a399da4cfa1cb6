"""DITR and D-DITR compared with the same network without images, on any dataset with posed images.

For every seed, with one 3D network and one recipe: without images; with images (DITR); from scratch with the
labels of a few training scenes; and the same after distillation from all training images without labels
(D-DITR). The last checkpoint is tested, so nothing is selected by score. The labelled scenes are drawn for
every seed, until they contain every class.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from markdown import table

from pointseg.config.recipe import Recipe
from pointseg.datasets.dataset import Dataset
from pointseg.evaluation.evaluate import evaluate
from pointseg.evaluation.spec import EvaluationSpec
from pointseg.evaluation.visualize_features import draw_features
from pointseg.images.config import ImageConfig
from pointseg.images.features.encoder import open_encoder
from pointseg.loading.build_feature_cache import CacheSpec, cache_features
from pointseg.training.distillation_task import Distillation
from pointseg.training.image_encoder import open_image_features
from pointseg.training.pretrained import initial_weights
from pointseg.training.segmentation_task import Segmentation
from pointseg.training.spec import TrainSpec
from pointseg.training.train import train

METHODS = ("without images", "DITR", "few labels", "few labels, D-DITR")


class FewLabels:
    """A dataset of which only some training scenes are used."""

    def __init__(self, whole: Dataset, scenes: Sequence[str]) -> None:
        self.whole, self.few = whole, tuple(scenes)
        self.name, self.classes, self.fields = whole.name, whole.classes, whole.fields
        self.splits, self.load = whole.splits, whole.load

    def scenes(self, split: str) -> tuple[str, ...]:
        """See Dataset.scenes."""
        return self.few if split == "train" else self.whole.scenes(split)


def few_labels(data: Dataset, count: int, seed: int) -> FewLabels:
    """Draw ``count`` training scenes that together contain every class of the training scenes."""
    scenes = data.scenes("train")
    there = {
        name: set(np.unique(data.load("train", name)["segment"]).tolist()) - {-1} for name in scenes
    }
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


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all runs share, and how long each is trained."""

    data: Dataset
    recipe: Recipe
    """The same for all methods except for the number of epochs."""
    images: ImageConfig
    work: Path
    """Folder for all output; the image features are in its ``features``."""
    epochs: int
    distil_epochs: int
    few_epochs: int
    labelled: int
    """Number of training scenes whose labels are used where labels are few."""

    def encode(self, weights: Path) -> None:
        """Encode all images of the scenes to train and test on, once for all runs."""
        recipe, images = self.recipe, self.images
        encoder = open_encoder(images.encoder, weights, images.encoder_config)
        splits = dict.fromkeys((*recipe.train_splits, *recipe.val_splits, *recipe.test_splits))
        cache_features(
            CacheSpec(
                dataset=self.data,
                encoder=encoder,
                name=images.encoder,
                size=(images.size[0], images.size[1]),
                out=self.work / "features",
                max_views=None,
                splits=tuple(splits),
                log=lambda line: None,
            )
        )

    def run(
        self,
        name: str,
        epochs: int,
        seed: int,
        *,
        seeing: bool = False,
        few: FewLabels | None = None,
        init: Path | None = None,
        distil: bool = False,
    ) -> Path:
        """Train a network; the last checkpoint."""
        features = open_image_features(
            self.images, weights=None, cache=self.work / "features", log=lambda line: None
        )
        cache, images = features.cache, features.config
        recipe = replace(self.recipe, epochs=epochs, images=images if seeing else None)
        out = self.work / f"seed{seed}" / name
        data: Any = few or self.data
        task: Any = Distillation(recipe, None) if distil else Segmentation(data, recipe)
        names = self.data.classes.names
        done = train(
            TrainSpec(
                dataset=data,
                recipe=recipe,
                out=out,
                task=task,
                cache=cache if seeing else None,
                init=initial_weights(init, names, recipe) if init else None,
                seed=seed,
                log=lambda line: None,
            )
        )
        if distil:
            draw_features(done.last, data, recipe, task, self.work, cache=cache)
        return done.last

    def test(self, model: Path, *, images: bool) -> dict[str, float]:
        """Test scores: mean IoU of all classes and of groups of classes, and the IoU of each class."""
        found = evaluate(
            EvaluationSpec(
                model=model,
                dataset=self.data,
                out=model.parent / "test",
                image_cache=self.work / "features" if images else None,
                overwrite=True,
                log=lambda line: None,
            )
        )
        each, names = found.metrics["test_point_iou"], self.data.classes.names
        groups = {"all": range(len(names)), **self.data.classes.groups}
        scores = {
            group: statistics.fmean(each[names[index]] or 0.0 for index in members)
            for group, members in groups.items()
        }
        return scores | {name: each[name] or 0.0 for name in names}

    def seed(self, seed: int) -> dict[str, dict[str, float]]:
        """Train and test every method with one seed; scores by method."""
        few = few_labels(self.data, self.labelled, seed)
        long, short = self.epochs, self.few_epochs
        steps: dict[str, Callable[[], Path]] = {
            METHODS[0]: lambda: self.run("plain", long, seed),
            METHODS[1]: lambda: self.run("ditr", long, seed, seeing=True),
            METHODS[2]: lambda: self.run("few", short, seed, few=few),
            METHODS[3]: lambda: self.run("few-distilled", short, seed, few=few, init=student()),
        }

        def student() -> Path:
            return self.run("distilled", self.distil_epochs, seed, seeing=True, distil=True)

        found = {}
        for method, step in steps.items():
            began = time.monotonic()
            model = step()
            minutes = (time.monotonic() - began) / 60
            scores = self.test(model, images=method == METHODS[1])
            listed = ", ".join(f"{name} {100 * value:.1f}" for name, value in scores.items())
            print(f"seed {seed}, {method}: {listed}", flush=True)
            found[method] = scores | {"minutes": minutes}
        return found

    def seeds(self, count: int, settings: dict[str, Any]) -> list[dict[str, dict[str, float]]]:
        """Run ``count`` seeds; WORK/results.json, with the settings, is written after each."""
        results: list[dict[str, dict[str, float]]] = []
        for seed in range(count):
            results.append(self.seed(seed))
            content = settings | {"recipe": json.loads(self.recipe.to_json()), "seeds": results}
            (self.work / "results.json").write_text(json.dumps(content, indent=1))
        return results


def show(results: Sequence[dict[str, dict[str, float]]], columns: Sequence[str]) -> str:
    """Mean and standard deviation over seeds, and the gains of images and distillation, paired by seed."""
    rows = []
    for method in METHODS:
        cells = [_spread([100 * seed[method][name] for seed in results]) for name in columns]
        minutes = statistics.fmean(seed[method]["minutes"] for seed in results)
        rows.append([method, *cells, f"{minutes:.1f}"])
    for one, other in (METHODS[1::-1], METHODS[:1:-1]):
        cells = [
            _spread([100 * (seed[one][name] - seed[other][name]) for seed in results])
            for name in columns
        ]
        rows.append([f"{one} minus {other}", *cells, ""])
    return table("|".join(["mean IoU, %", *columns, "training, min"]), rows)


def _spread(values: Sequence[float]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.1f} ± {spread:.1f}"
