"""Test a trained model on all scenes of some splits: labels, scores and pictures; resumable by scene."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.hub.local_model import name_or_path
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import new_file, remove_leftovers
from pointseg.config.folder_recipe import read_as_stated
from pointseg.config.recipe import InferenceConfig
from pointseg.datasets.dataset import Dataset
from pointseg.datasets.look_over import leave_out, look_over, tell_remarks
from pointseg.datasets.submission import Submits
from pointseg.evaluation.image_options import images_of_model, scene_images, visibility_loader
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.point_metrics import BY_VISIBILITY, point_metrics
from pointseg.evaluation.robustness import Corruption
from pointseg.evaluation.saved_labels import (
    Labels,
    input_digest,
    labels_file,
    read_valid_labels,
    save_labels,
    write_json,
)
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.evaluation.spec import EvaluationResult, EvaluationSpec
from pointseg.evaluation.visibility_breakdown import GROUPS, visibility_scores
from pointseg.loading.scene_images import ImageSet
from pointseg.metrics import Confusion
from pointseg.models.trained_model import TrainedSpec, load_model
from pointseg.pictures.confusion import write_confusion
from pointseg.pictures.sheets import comparison, labelled
from pointseg.scene import IGNORE, Scene

VERSION = 2
"""Version of the prediction of scenes; results of other versions are not reused."""


def evaluate(spec: EvaluationSpec) -> EvaluationResult:
    """Predict every scene, score, and write the folder of results.

    It holds ``metrics.json``, ``confusion.png`` and ``.csv``, ``labels/SPLIT/SCENE.npy`` (one class per
    point of the scene, in the order of its file; points without a position, NaN, are left out) with a ``.json`` that
    says how they were made, and ``pictures/``. Scenes that were predicted
    by the same checkpoint in the same way are verified and reused.

    Raises:
        UserError: a missing checkpoint or split, other classes, options or scenes that do not fit the model.
    """
    if spec.submit is not None and not isinstance(spec.dataset, Submits):
        raise UserError(f"--submit: {spec.dataset.name} has no benchmark to submit results to")
    if spec.submit is not None and spec.corruption != Corruption():
        raise UserError("--submit: results on corrupted scenes are not for submission")
    test = _Test(spec)
    for number, (split, name) in enumerate(test.scenes):
        spec.progress(number, len(test.scenes), f"{split}/{name}")
        test.add(number, split, name)
    spec.progress(len(test.scenes), len(test.scenes), "")
    return test.finish()


class _Test:
    """A test with what was counted so far."""

    def __init__(self, spec: EvaluationSpec) -> None:
        self.spec = spec
        model, self.trained = load_model(
            spec.model, spec.device, encoder=spec.encoder, backbone=spec.backbone
        )
        for note in self.trained.notes:
            spec.log(f"model {spec.model}: {note}")
        recipe, classes = self.trained.recipe, len(self.trained.classes)
        self.images = scene_images(spec, self.trained)
        self.visibility = self.images or visibility_loader(spec)
        if self.visibility is not None and self.images is None:
            spec.log(f"visible points: {self.visibility.images.config.viewing_in_words()}")
        _check_classes(spec.dataset, self.trained)
        config: InferenceConfig = replace(recipe.test, **spec.test_changes)
        self.predictor = ScenePredictor(
            model,
            recipe,
            classes,
            InferenceProtocol(config=config, single_pass=spec.single_pass),
            device=spec.device,
            precision=spec.precision,
            log=spec.log,
        )
        self.splits = recipe.test_splits if spec.splits is None else spec.splits
        if spec.submit is not None and len(self.splits) != 1:
            raise UserError(
                f"--submit: takes one split; give --split once, got {', '.join(self.splits)}"
            )
        read_as_stated(spec.dataset, recipe, overrides=False)
        leave_out(spec.dataset, look_over(spec.dataset, self.splits), spec.log)
        tell_remarks(spec.dataset, spec.log)
        self.scenes = [(s, name) for s in self.splits for name in spec.dataset.scenes(s)]
        if not self.scenes:
            raise UserError(
                f"{spec.dataset.name}: the splits {', '.join(self.splits)} hold no scene"
            )
        kinds = [
            spec.out / kind / split for kind in ("labels", "pictures") for split in self.splits
        ]
        remove_leftovers([spec.out, *kinds])
        self.how = _how(spec, self.trained, self.predictor.protocol)
        self.confusion = Confusion(classes)
        self.by_visibility = {name: Confusion(classes) for name in GROUPS}
        self.drawn: list[Path] = []
        self.reused, self.seconds, self.points = 0, 0.0, 0

    def add(self, number: int, split: str, name: str) -> None:
        """Predict and count one scene."""
        spec = self.spec
        scene = spec.corruption.corrupt_scene(spec.dataset.load(split, name))
        images, visible = None, None
        if self.images is not None:
            scene, images = self.images.load(split, name, scene)
            visible = scene["image_mask"].any(1)
        elif self.visibility is not None:
            visible = self.visibility.visible_mask(split, name, scene)
        labels = self._labels(number, split, name, scene, images)
        self.points += len(scene)
        truth = scene.fields.get("segment")
        if truth is not None:
            self.confusion.add(labels, truth)
            if visible is not None:
                for group, mask in zip(GROUPS, (visible, ~visible), strict=True):
                    self.by_visibility[group].add(labels[mask], truth[mask])
        if number < spec.pictures:
            path = spec.out / "pictures" / split / f"{name}.png"
            _draw(path, self.trained, scene, labels)
            self.drawn.append(path)

    def _labels(
        self, number: int, split: str, name: str, scene: Scene, images: ImageSet | None
    ) -> Labels:
        """Saved labels if they are valid, else predicted ones."""
        spec, total = self.spec, len(self.scenes)
        path = labels_file(spec.out, split, name)
        how = {**self.how, "cloud_sha256": input_digest(scene, self.trained, images)}
        found = None if spec.overwrite else read_valid_labels(path, how, len(scene))
        if found is not None:
            self.reused += 1
            return found
        lost = int((~np.isfinite(scene.coord).all(1)).sum())
        if lost:
            raise UserError(
                f"scene {scene.name}: {lost} points have positions that are not finite, which can neither be "
                "predicted nor scored; remove them when the dataset is prepared"
            )
        began = time.monotonic()
        labels: Labels = self.predictor.predict_labels(
            scene, lambda share: spec.progress(number + share, total, ""), images
        )
        if len(self.trained.classes) <= np.iinfo(np.uint16).max:
            labels = labels.astype(np.uint16)
        self.seconds += time.monotonic() - began
        save_labels(path, labels, how)
        return labels

    def finish(self) -> EvaluationResult:
        """Write the results of all scenes."""
        spec, classes = self.spec, self.trained.classes
        if self.reused:
            spec.log(
                f"{self.reused} of {len(self.scenes)} scenes were predicted before by this model, and verified"
            )
        if spec.submit is not None:
            assert isinstance(spec.dataset, Submits)  # checked before
            (split,) = self.splits
            spec.dataset.write_submission(
                spec.submit, self._saved(), split=split, use_camera=self.images is not None
            )
        metrics = point_metrics(self.confusion, classes)
        if self.visibility is not None:
            metrics[BY_VISIBILITY] = visibility_scores(self.by_visibility, classes.names)
        metrics["scenes"], metrics["predicted_points"] = len(self.scenes), self.points
        metrics["protocol"] = {
            "dataset": spec.dataset.name,
            "splits": list(self.splits),
            **self.how,
            **self._visibility_rule(),
        }
        metrics["checkpoint"] = name_or_path(spec.model)
        metrics["seconds"] = round(self.seconds, 3)
        write_json(spec.out / "metrics.json", metrics)
        if self.confusion.matrix.any():
            picture, table = spec.out / "confusion.png", spec.out / "confusion.csv"
            write_confusion(self.confusion.matrix, classes.names, picture, table)
        return EvaluationResult(
            metrics=metrics, confusion=self.confusion, pictures=tuple(self.drawn)
        )

    def _visibility_rule(self) -> dict[str, Any]:
        """The rule of visibility, where predictions do not depend on it."""
        if self.visibility is None or self.images is not None:
            return {}
        cache = self.visibility.images.cache
        cached = {} if cache is None else {"cached_views": cache.views}
        return {"visibility": self.visibility.images.config.viewing_as_dict() | cached}

    def _saved(self) -> Iterator[tuple[str, Scene, NDArray[np.int32]]]:
        for split, name in self.scenes:
            labels = np.load(labels_file(self.spec.out, split, name), allow_pickle=False)
            yield name, self.spec.dataset.load(split, name), labels.astype(np.int32)


def _check_classes(dataset: Dataset, trained: TrainedSpec) -> None:
    theirs, ours = dataset.classes.names, trained.classes.names
    if theirs != ours:
        raise UserError(
            f"the model has {len(ours)} classes ({some(ours)}), the dataset {dataset.name} has "
            f"{len(theirs)} ({some(theirs)}); test it on the classes it was trained on"
        )


def some(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _how(spec: EvaluationSpec, trained: TrainedSpec, protocol: InferenceProtocol) -> dict[str, Any]:
    """Everything that decides what is predicted for a scene."""
    images = images_of_model(spec, trained)
    return {
        "version": VERSION,
        "checkpoint_sha256": trained.sha256,
        "backbone": trained.recipe.backbone,
        "voxel_m": trained.recipe.voxel_m,
        **protocol.as_dict(),
        "precision": spec.precision,
        **({} if spec.corruption == Corruption() else asdict(spec.corruption)),
        **({} if images is None else {"images": asdict(images)}),
    }


def _draw(path: Path, trained: TrainedSpec, scene: Scene, labels: Labels) -> None:
    names, colors = trained.classes.names, trained.classes.colors
    predicted = labels.astype(np.int32)
    truth = scene.fields.get("segment")
    if truth is None or not (truth != IGNORE).any():
        picture = labelled(scene.coord, predicted, names, colors)
    else:
        photo = scene.fields.get("color")
        picture = comparison(scene.coord, truth, predicted, names, colors, photo=photo)
    with new_file(path) as part:
        picture.save(part, format="PNG")
