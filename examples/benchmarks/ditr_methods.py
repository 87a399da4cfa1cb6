"""DITR and D-DITR compared with the same network without images, and with controls, on data with posed images.

Every arm (`Arm`) has the same 3D network, recipe and number of optimizer steps; arms differ in the image
features that the network reads, in the number of labelled scenes, and in the weights that they start from. The
last checkpoint is tested, so nothing is selected by score. Every run has a file of its own in WORK/runs: a
benchmark that was interrupted goes on with the runs that are missing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ditr_data import OtherImages, few_labels
from ditr_probe import fit_head, linear_probe
from torch import nn

from dinomed3d.lifting import Encoder
from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.config.recipe import Recipe
from pointseg.config.serialization import override
from pointseg.evaluation.evaluate import evaluate
from pointseg.evaluation.spec import EvaluationSpec
from pointseg.evaluation.visualize_features import draw_features
from pointseg.images.config import ImageConfig
from pointseg.loading.build_feature_cache import CacheSpec, cache_features
from pointseg.metrics import Confusion
from pointseg.models.image_encoder import open_image_features
from pointseg.models.pretrained import initial_weights
from pointseg.segmenter import Segmenter
from pointseg.training.run.spec import TrainSpec
from pointseg.training.tasks.distillation import Distillation
from pointseg.training.tasks.segmentation import Segmentation
from pointseg.training.train import train

DINO, PERMUTED, COLORS = "features", "permuted", "colors"
"""Sources of image features."""
SCRATCH, DISTIL, PROBE = "scratch", "distil", "probe"
"""What an arm does: learn from labels, distil features without labels, or a linear classifier on features."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One row of a table."""

    name: str
    """Title of the row."""
    kind: str = SCRATCH
    """SCRATCH, DISTIL or PROBE."""
    source: str = ""
    """Features that are read: DINO, PERMUTED or COLORS; "": the network reads no images."""
    few: bool = False
    """Whether the labels of a few training scenes are used, instead of all."""
    others: bool = False
    """Whether scenes have the images of other scenes, in training and tests."""
    init: Arm | None = None
    """A DISTIL arm whose backbone this one starts from, with a head fitted to it first."""
    again: Arm | None = None
    """An arm whose network is only tested again, with the images of other scenes; nothing is trained."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the recipe that this arm changes, say "optimizer.lr"."""
    once: bool = False
    """Whether the run of seed 0 serves all seeds."""

    @property
    def slug(self) -> str:
        """The name as a file name."""
        return "".join(c if c.isalnum() else "-" for c in self.name.lower())


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What all runs share."""

    data: Any
    """Dataset with images."""
    recipe: Recipe
    """The same for all arms except for the number of epochs; tests are on its ``test_splits``."""
    images: ImageConfig
    """How the network uses the features DINO; of other sources only channels and stride differ."""
    work: Path
    """Folder for all output."""
    steps: int
    """Optimizer steps of every arm that learns from labels."""
    distil_steps: int
    """Optimizer steps of distillation."""
    labelled: int
    """Number of training scenes whose labels are used where labels are few."""

    def encode(self, source: str, encoder: Encoder) -> None:
        """Encode all images of the scenes to train and test on, once for all runs."""
        recipe, images = self.recipe, self.images_of(source)
        splits = dict.fromkeys((*recipe.train_splits, *recipe.val_splits, *recipe.test_splits))
        cache_features(
            CacheSpec(
                dataset=self.data,
                encoder=encoder,
                name=images.encoder,
                size=(images.size[0], images.size[1]),
                out=self.cache_of(source),
                max_views=None,
                splits=tuple(splits),
                log=lambda line: None,
            )
        )

    def run(self, arm: Arm, seed: int) -> dict[str, Any]:
        """Train and test one arm with one seed, or read what an earlier run found."""
        seed = 0 if arm.once else seed
        done = self._finished(arm, seed)
        if done is not None:
            return done
        began = time.monotonic()
        learn = few_labels(self.data, self.labelled, seed) if arm.few else self.data
        confusion = self._find(arm, learn, seed)
        found = {
            "arm": arm.name,
            "seed": seed,
            "settings": self._settings(arm),
            "labelled": list(learn.scenes("train")),
            "minutes": (time.monotonic() - began) / 60,
            "confusion": None if confusion is None else confusion.matrix.tolist(),
        }
        with new_file(self._file(arm, seed)) as part:
            part.write_text(json.dumps(found, indent=1))
        return found

    def finished(self, arms: Sequence[Arm], seeds: int) -> list[dict[str, Any]]:
        """What the runs found that have been done so far with these settings."""
        runs = {
            self._file(arm, seed): self._finished(arm, seed)
            for arm in arms
            for seed in range(seeds)
        }
        return [run for run in runs.values() if run is not None]

    def _finished(self, arm: Arm, seed: int) -> dict[str, Any] | None:
        path = self._file(arm, seed)
        if not path.is_file():
            return None
        done: dict[str, Any] = json.loads(path.read_text())
        return done if done["settings"] == self._settings(arm) else None

    def _file(self, arm: Arm, seed: int) -> Path:
        return self.folder(arm, seed) / "run.json"

    def _find(self, arm: Arm, learn: Any, seed: int) -> Confusion | None:
        test = OtherImages(self.data, seed) if arm.others or arm.again else self.data
        if arm.kind == PROBE:
            images, cache = self.images_of(arm.source), self.cache_of(arm.source)
            split = self.recipe.test_splits[0]
            return linear_probe(learn, test, split, images, cache, seed=seed)
        if arm.again is not None:
            model = self.folder(arm.again, seed) / "last.pt"
            return self._test(model, test, arm.again, "test-others")
        if arm.others:
            learn = OtherImages(learn, seed)
        model = self._train(arm, learn, seed)
        return None if arm.kind == DISTIL else self._test(model, test, arm, "test")

    def _train(self, arm: Arm, learn: Any, seed: int) -> Path:
        """Train a network; the last checkpoint."""
        cache, images = None, None
        if arm.source:
            found = open_image_features(
                self.images_of(arm.source),
                weights=None,
                cache=self.cache_of(arm.source),
                log=lambda line: None,
            )
            cache, images = found.cache, found.config
        steps = self.distil_steps if arm.kind == DISTIL else self.steps
        each = max(1, len(learn.scenes("train")) // self.recipe.batch_size)
        recipe = replace(
            self.recipe,
            images=images,
            epochs=max(1, steps // each),
        )
        recipe = override(recipe, [f"{name}={value}" for name, value in arm.changes.items()])
        start = None if arm.init is None else self._start(arm.init, learn, recipe, seed)
        task: Any = (
            Distillation(recipe, None) if arm.kind == DISTIL else Segmentation(learn, recipe)
        )
        out = self.folder(arm, seed)
        done = train(
            TrainSpec(
                dataset=learn,
                recipe=recipe,
                out=out,
                task=task,
                cache=cache,
                init=start,
                seed=seed,
                log=lambda line: None,
            )
        )
        if arm.kind == DISTIL and seed == 0:
            draw_features(done.last, self.data, recipe, task, self.work, cache=cache)
        return done.last

    def _start(
        self, distilled: Arm, learn: Any, recipe: Recipe, seed: int
    ) -> Callable[[nn.Module], str]:
        """Sets the backbone of a distilled one, and a head that is fitted to it."""
        load = initial_weights(
            self.folder(distilled, seed) / "last.pt", self.data.classes.names, recipe
        )

        def start(segmenter: nn.Module) -> str:
            assert isinstance(segmenter, Segmenter)
            done = load(segmenter)
            fit_head(segmenter, learn, recipe, seed)
            return done

        return start

    def _test(self, model: Path, data: Any, arm: Arm, folder: str) -> Confusion:
        return evaluate(
            EvaluationSpec(
                model=model,
                dataset=data,
                out=model.parent / folder,
                image_cache=self.cache_of(arm.source) if arm.source else None,
                overwrite=True,
                pictures=0,
                log=lambda line: None,
            )
        ).confusion

    def images_of(self, source: str) -> ImageConfig:
        """How the features of a source are used."""
        if source != COLORS:
            return self.images
        return replace(self.images, encoder="pixel colors", encoder_config={})

    def cache_of(self, source: str) -> Path:
        """Folder of the features of a source."""
        return self.work / "images" / source

    def folder(self, arm: Arm, seed: int) -> Path:
        """Of one run."""
        return self.work / "runs" / f"{arm.slug}-seed{0 if arm.once else seed}"

    def _settings(self, arm: Arm) -> dict[str, Any]:
        """All that decides what a run finds, as JSON."""
        recipe = json.loads(replace(self.recipe, images=self.images).to_json())
        steps = self.distil_steps if arm.kind == DISTIL else self.steps
        shared = {"labelled": self.labelled if arm.few else None, "steps": steps, "recipe": recipe}
        started = [self._settings(first) for first in (arm.init, arm.again) if first is not None]
        changed = {
            part.name: getattr(arm, part.name)
            for part in fields(arm)
            if part.name not in ("init", "again")
            and getattr(arm, part.name) != getattr(Arm(name=""), part.name)
        }
        found: dict[str, Any] = json.loads(json.dumps({"arm": changed, "after": started}))
        return found | shared
