"""A trained model on all scenes of some splits: labels, pictures, one score. Resumable by scene."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import Protocol
from pointseg.datasets.dataset import ClassList, Dataset
from pointseg.datasets.submission import Submits
from pointseg.evaluation.robustness import Degradation
from pointseg.evaluation.tta import InferenceProtocol, TestTimePredictor
from pointseg.evaluation.visibility_breakdown import scores_by_sight
from pointseg.images.config import ImageConfig
from pointseg.loading.scene_images import SceneImageLoader, Showing, Views
from pointseg.metrics import Confusion
from pointseg.pictures.confusion import write_confusion
from pointseg.pictures.sheets import comparison, labelled
from pointseg.scene import IGNORE, Scene
from pointseg.training.checkpoint import EncoderSource, TrainedSpec, load_model
from pointseg.training.image_encoder import cache_of

VERSION = 1
"""Of the way scenes are predicted; results of another one are not taken up."""


@dataclass(frozen=True, kw_only=True)
class ScoreSpec:
    """One test of a model."""

    model: Path
    dataset: Dataset
    out: Path
    """Folder of the results; made if need be. What an interrupted test left there is taken up."""
    splits: tuple[str, ...] | None = None
    """None: those of the recipe."""
    protocol: Callable[[Protocol], Protocol] = lambda protocol: protocol
    """Changes the recipe's protocol."""
    fast: bool = False
    """One pass over one point per voxel."""
    device: str = "cpu"
    precision: str = "float32"
    pictures: int = 4
    """How many scenes are drawn."""
    submit: Path | None = None
    """Where the benchmark's files go."""
    overwrite: bool = False
    """Predict again what is there."""
    encoder: EncoderSource | None = None
    """Opens the image encoder, for models that read images."""
    image_cache: Path | None = None
    """Instead of it: the folder with the features of all images."""
    seeing: Callable[[ImageConfig], ImageConfig] = lambda images: images
    """Changes how the recipe's images are used, such as how many."""
    sight: ImageConfig | None = None
    """For models that read no images: by which rule the dataset's images show points, for scores by sight.
    With ``image_cache`` of the views that it holds."""
    degradation: Degradation = field(default_factory=Degradation)
    """What is done to scenes and cameras before they are predicted."""
    log: Callable[[str], None] = print
    progress: Callable[[float, int, str], None] = lambda done, total, name: None
    """Told how many scenes are done, in fractions, of how many, and which one is begun."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a test found."""

    metrics: dict[str, Any]
    """As in ``metrics.json``."""
    confusion: Confusion
    pictures: tuple[Path, ...] = field(default=())


def score(spec: ScoreSpec) -> Score:
    """Predict every scene, count, and write the folder of results.

    It holds ``metrics.json``, ``confusion.png`` and ``.csv``, ``labels/SPLIT/SCENE.npy`` (one class per
    point) with a ``.json`` that says how they came about, and ``pictures/``. Scenes that were predicted
    by the same file of weights in the same way are verified and taken as they are.

    Raises:
        UserError: a checkpoint or split that is not there, other classes, a scene that does not fit.
    """
    if spec.submit is not None and not isinstance(spec.dataset, Submits):
        raise UserError(f"--submit: there is no benchmark for results on {spec.dataset.name}")
    model, trained = load_model(spec.model, spec.device, encoder=spec.encoder)
    imagery = _imagery(spec, trained)
    sight = None if imagery is not None else _sight(spec)
    _check_classes(spec.dataset, trained)
    protocol = spec.protocol(trained.recipe.test)
    voter = TestTimePredictor(
        model, trained.recipe, len(trained.classes), InferenceProtocol(protocol=protocol, fast=spec.fast),
        device=spec.device, precision=spec.precision, say=spec.log,
    )  # fmt: skip
    splits = trained.recipe.test_splits if spec.splits is None else spec.splits
    if spec.submit is not None and len(splits) != 1:
        raise UserError(
            f"--submit: a submission is for one split, give --split once; got {', '.join(splits)}"
        )
    scenes = [(split, name) for split in splits for name in spec.dataset.scenes(split)]
    if not scenes:
        raise UserError(f"{spec.dataset.name}: the splits {', '.join(splits)} hold no scene")
    way = _way(spec, trained, protocol)
    confusion, drawn, kept, seconds, points = Confusion(len(trained.classes)), [], 0, 0.0, 0
    by_sight = {name: Confusion(len(trained.classes)) for name in ("seen", "unseen")}
    for number, (split, name) in enumerate(scenes):
        spec.progress(number, len(scenes), f"{split}/{name}")
        scene = spec.degradation.scene(spec.dataset.load(split, name))
        views, shown = None, None
        if imagery is not None:
            scene, views = imagery.attach(split, name, scene)
            shown = scene["image_mask"].any(1)
        elif sight is not None:
            shown = sight.shown(split, name, scene)
        place = labels_file(spec.out, split, name)
        made = {**way, "cloud_sha256": _digest(scene, trained, views)}
        found = None if spec.overwrite else _verified(place, made, len(scene))
        kept += found is not None
        if found is None:
            began = time.monotonic()
            labels = _predicted(voter, scene, views, _told(spec, number, len(scenes)))
            seconds += time.monotonic() - began
            _keep(place, labels, made, scene)
        else:
            labels = found
        points += len(scene)
        truth = scene.fields.get("segment")
        if truth is not None:
            confusion.add(labels, truth)
            if shown is not None:
                by_sight["seen"].add(labels[shown], truth[shown])
                by_sight["unseen"].add(labels[~shown], truth[~shown])
        if number < spec.pictures:
            drawn.append(_draw(spec, trained, scene, labels, split, name))
    spec.progress(len(scenes), len(scenes), "")
    if kept:
        spec.log(
            f"{kept} of {len(scenes)} scenes were predicted before by this model, and verified"
        )
    if spec.submit is not None:
        assert isinstance(spec.dataset, Submits)  # checked above
        (split,) = splits  # checked above
        results = _results(spec, scenes)
        spec.dataset.write_submission(
            spec.submit, results, split=split, use_camera=imagery is not None
        )
    metrics = point_metrics(confusion, trained.classes)
    metrics["groups"] = {name: list(rows) for name, rows in trained.classes.groups.items()}
    if imagery is not None or sight is not None:
        metrics["test_point_miou_by_sight"] = scores_by_sight(by_sight, trained.classes.names)
    metrics["scenes"], metrics["predicted_points"] = len(scenes), points
    metrics["protocol"] = {"dataset": spec.dataset.name, "splits": list(splits), **way}
    if sight is not None:  # of which the predictions do not know
        cache = sight.showing.cache
        told = {} if cache is None else {"cached_views": cache.views}
        metrics["protocol"]["sight"] = sight.showing.recipe.viewing_as_dict() | told
    metrics["checkpoint"] = str(spec.model)
    metrics["seconds"] = round(seconds, 3)
    _write_json(spec.out / "metrics.json", metrics)
    if confusion.matrix.any():
        pictured, table = spec.out / "confusion.png", spec.out / "confusion.csv"
        write_confusion(confusion.matrix, trained.classes.names, pictured, table)
    return Score(metrics=metrics, confusion=confusion, pictures=tuple(drawn))


def _imagery(spec: ScoreSpec, trained: TrainedSpec) -> SceneImageLoader | None:
    """Where the scenes' images come from, for a model that reads them.

    Raises:
        UserError: neither an encoder nor a cache for a model that needs one; lost cameras for one that has none.
    """
    if spec.degradation.drop_color and "color" not in trained.needs:
        raise UserError(f"--drop-color: the model {spec.model} reads no colours")
    images = trained.recipe.images
    if images is None:
        if spec.degradation.of_cameras:
            raise UserError(f"model {spec.model}: reads no images, so cameras cannot fail")
        return None
    if spec.encoder is None and spec.image_cache is None:
        raise UserError(
            f"model {spec.model}: reads features of {images.encoder}; give the weights it was trained "
            "with (--weights FILE), or features made by pointseg-cache-features (--image-cache DIR)"
        )
    stated, images = images, spec.seeing(images)
    change = spec.degradation.frames if spec.degradation.of_cameras else None
    if change is not None:
        images = replace(images, allow_unseen=True)
    cache = None if spec.image_cache is None else cache_of(images, spec.image_cache)
    held = None if cache is None else cache.views
    if cache and held and images.views != stated.views and (images.views or held + 1) > held:
        raise UserError(
            f"--image-views {images.views}: the cache {cache.root} holds {held} images of each scene; ask for "
            "so many, or add more with pointseg-cache-features --views"
        )
    return SceneImageLoader(spec.dataset, Showing(images, cache, change))


def _sight(spec: ScoreSpec) -> SceneImageLoader | None:
    """Which points some view shows, by the rule that is asked for; scenes may have none."""
    if spec.sight is None:
        return None
    spec.log(f"seen and unseen points: {spec.sight.viewing_in_words()}")
    cache = None if spec.image_cache is None else cache_of(spec.sight, spec.image_cache)
    return SceneImageLoader(spec.dataset, Showing(replace(spec.sight, allow_unseen=True), cache))


def labels_file(out: Path, split: str, scene: str) -> Path:
    """Where a scene's predicted classes are kept."""
    return out / "labels" / split / f"{scene}.npy"


def _told(spec: ScoreSpec, done: int, total: int) -> Callable[[float], None]:
    return lambda share: spec.progress(done + share, total, "")


def _check_classes(dataset: Dataset, trained: TrainedSpec) -> None:
    theirs, ours = dataset.classes.names, trained.classes.names
    if theirs != ours:
        raise UserError(
            f"the model names {len(ours)} classes ({_some(ours)}), the dataset {dataset.name} has "
            f"{len(theirs)} ({_some(theirs)}); test it on the classes it was trained on"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _way(spec: ScoreSpec, trained: TrainedSpec, protocol: Protocol) -> dict[str, Any]:
    """All that decides what is predicted for a scene."""
    passes = InferenceProtocol(protocol=protocol, fast=spec.fast)
    damage = {} if spec.degradation == Degradation() else asdict(spec.degradation)
    return {
        **damage,
        **(
            {}
            if trained.recipe.images is None
            else {"images": asdict(spec.seeing(trained.recipe.images))}
        ),
        "version": VERSION,
        "checkpoint_sha256": trained.sha256,
        "backbone": trained.recipe.backbone,
        "voxel_m": trained.recipe.voxel_m,
        "prevoxel_m": None if spec.fast else protocol.prevoxel_m,
        "views": [asdict(view) for view in passes.views],
        "fragments": "one point of each voxel" if spec.fast else "every point",
        "most_fragments": 1 if spec.fast else passes.most_fragments,
        "max_points": protocol.max_points,
        "margin_m": protocol.margin_m,
        "precision": spec.precision,
    }


def _predicted(
    voter: TestTimePredictor, scene: Scene, views: Views | None, progress: Callable[[float], None]
) -> NDArray[np.integer[Any]]:
    lost = int((~np.isfinite(scene.coord).all(1)).sum())
    if lost:
        raise UserError(
            f"scene {scene.name}: {lost} points have positions that are not finite: they can be neither "
            "predicted nor counted; drop them when the dataset is prepared"
        )
    labels = voter.predict_labels(scene, progress, views)
    small = voter.classes <= np.iinfo(np.uint16).max
    return labels.astype(np.uint16) if small else labels


def _digest(scene: Scene, trained: TrainedSpec, views: Views | None) -> str:
    """Of everything that a prediction is made from."""
    digest = hashlib.sha256(np.ascontiguousarray(scene.coord).tobytes())
    for name in (*trained.needs, "image_coord", "image_mask"):
        if name in scene:
            digest.update(np.ascontiguousarray(scene[name]).tobytes())
    if views is not None:
        known = views.images if views.maps is None else views.maps.contiguous().numpy()
        digest.update(np.ascontiguousarray(known).tobytes())
    return digest.hexdigest()


def _keep(place: Path, labels: NDArray[np.integer[Any]], way: dict[str, Any], scene: Scene) -> None:
    """Labels first, then what vouches for them."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with new_file(place) as part:
        np.save(part, labels)
    digest = hashlib.sha256(place.read_bytes()).hexdigest()
    told = {**way, "points": len(scene), "labels_sha256": digest}
    _write_json(place.with_name(f"{place.name}.json"), told)


def _verified(place: Path, way: dict[str, Any], points: int) -> NDArray[np.integer[Any]] | None:
    """Labels that are there, whole, and were made in the same way; else None."""
    try:
        told = json.loads(place.with_name(f"{place.name}.json").read_text(encoding="utf-8"))
        digest = hashlib.sha256(place.read_bytes()).hexdigest()
        if told != {**way, "points": points, "labels_sha256": digest}:
            return None
        labels: NDArray[np.integer[Any]] = np.load(place, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return labels if labels.shape == (points,) else None


def _draw(
    spec: ScoreSpec,
    trained: TrainedSpec,
    scene: Scene,
    labels: NDArray[np.integer[Any]],
    split: str,
    name: str,
) -> Path:
    path = spec.out / "pictures" / split / f"{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
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
    return path


def _results(
    spec: ScoreSpec, scenes: Sequence[tuple[str, str]]
) -> Iterator[tuple[str, Scene, NDArray[np.int32]]]:
    for split, name in scenes:
        labels = np.load(labels_file(spec.out, split, name), allow_pickle=False)
        yield name, spec.dataset.load(split, name), labels.astype(np.int32)


def point_metrics(confusion: Confusion, classes: ClassList) -> dict[str, Any]:
    """Scores named for what they are; None where nothing was labelled."""
    found = confusion.as_dict(classes.names)
    means = ("miou", "miou_present", "accuracy", "mean_accuracy", "mean_accuracy_present")
    labelled_points = found["points"]
    metrics = {f"test_point_{key}": found[key] if labelled_points else None for key in means}
    metrics |= {"test_point_iou": found["iou"], "test_point_recall": found["recall"]}
    metrics["test_point_miou_by_group"] = {
        group: {
            "absent_as_0": confusion.miou(rows),
            "present": _number(confusion.miou_present(rows)),
        }
        for group, rows in classes.groups.items()
        if labelled_points
    }
    return {**metrics, "labelled_points": labelled_points}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else value


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
