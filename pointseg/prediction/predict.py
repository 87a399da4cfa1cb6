"""Files of unlabelled clouds in, the same files with a class for every point out; a bad one costs only itself."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from dinomed3d.runtime.errors import UserError
from pointseg.config.recipe import Form, Protocol
from pointseg.datasets.axes import upright
from pointseg.datasets.folder.cameras import CameraRule
from pointseg.datasets.scale import check_scale
from pointseg.evaluation.tta import InferenceProtocol, TestTimePredictor
from pointseg.files import (
    TEXT,
    CloudFileError,
    check_labelled,
    cloud_suffix,
    finite_points,
    read_cloud,
    write_labelled,
)
from pointseg.files.columns import file_strength, strength_scale, usual_strength
from pointseg.files.las import is_copc
from pointseg.files.text import fitting_columns
from pointseg.images.config import ImageConfig
from pointseg.pictures import labelled
from pointseg.pictures.viewpoints import VIEWPOINTS
from pointseg.prediction.cloud_images import CloudImages
from pointseg.prediction.input_files import Source, find_sources
from pointseg.scene import IGNORE, Scene
from pointseg.training.checkpoint import EncoderSource, TrainedSpec, load_model

VERSION = 1
"""Of the way files are predicted; results of another one are made again."""


SEEN_FROM = {
    "middle": "pointing to the middle of the cloud",
    "origin": "pointing to the origin of the coordinates",
    "up": "pointing up",
}
"""Where estimated normals can point to."""
SCALED = (".bin", ".pcd.bin")
"""Types of files that say what their intensities mean."""
DEFAULT_SEEN_FROM = {"indoor": "middle", "outdoor": "origin"}


@dataclass(frozen=True, kw_only=True)
class PredictSpec:
    """Which files are predicted, and how."""

    inputs: tuple[Path, ...]
    """Files, and folders that are walked."""
    out: Path
    """Folder for the results; or a file, where the input is one file."""
    model: Path
    protocol: Callable[[Protocol], Protocol] = lambda protocol: protocol
    """Changes the protocol of the model's recipe."""
    full: bool = False
    """All views and every point, as in tests, instead of one pass over one point per voxel."""
    unit_m: float | None = None
    """Metres per unit of the coordinates; None: as of the clouds that the model was trained on."""
    strength_max: float | None = None
    """The intensity that becomes 1; None: as of the clouds that the model was trained on, else guessed."""
    up: str | None = None
    """The axis that points up: z, y or -y; None: as of the clouds that the model was trained on."""
    seen_from: str | None = None
    """Where estimated normals point to, one of ``SEEN_FROM``. None: to the middle of rooms, outdoors to
    the origin, where LiDAR scans have their sensor."""
    encoder: EncoderSource | None = None
    """Opens the image encoder, for models that read images."""
    seeing: Callable[[ImageConfig], ImageConfig] | None = None
    """Changes how the recipe's images are used, such as how many."""
    cameras: CameraRule | None = None
    """Where the posed images of each cloud are, below its folder; None: a cloud has none."""
    any_scale: bool = False
    """Predict clouds, too, whose scale does not seem to fit the model's voxels."""
    colors: bool = False
    """Give the points the colours of their classes."""
    pictures: bool = True
    overwrite: bool = False
    """Predict again what is there."""
    device: str = "cpu"
    precision: str = "float32"
    log: Callable[[str], None] = print
    progress: Callable[[float, int, str], None] = lambda done, total, name: None
    """Told how many files are done, in fractions, of how many, and which one is begun."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What has become of one file."""

    source: str
    status: str
    """done, kept (was there and is what it should be) or failed."""
    target: str = ""
    points: int = 0
    unlabelled: int = 0
    """Points without a position, which have class -1."""
    classes: dict[str, int] | None = None
    """Points of each class that there is."""
    seen: float | None = None
    """Share of the points that images show, for models that read such."""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    """What the reader should know."""
    reason: str = ""
    """Why it failed."""


def predict(spec: PredictSpec) -> list[Prediction]:
    """Predict all files; writes, beside each, a record (``.json``) and two pictures, and ``summary.json``.

    Results that are there already are kept if they can be read, and were made from the same file by
    the same model in the same way.

    Raises:
        UserError: no model, no files, or results that would lie on top of each other.
    """
    sources = find_sources(spec.inputs, spec.out)
    model, trained = load_model(spec.model, spec.device, encoder=spec.encoder)
    _check_images(spec, trained)
    protocol = spec.protocol(trained.recipe.test)
    voter = TestTimePredictor(
        model,
        trained.recipe,
        len(trained.classes),
        InferenceProtocol(protocol=protocol, fast=not spec.full),
        device=spec.device,
        precision=spec.precision,
        say=spec.log,
    )
    way = _way(spec, trained, voter.passes)
    results = []
    for number, source in enumerate(sources):
        spec.progress(number, len(sources), source.path.name)
        told = _told(spec, number, len(sources))
        results.append(_one(spec, voter, trained, way, source, told))
    spec.progress(len(sources), len(sources), "")
    if not (len(sources) == 1 and sources[0].target == spec.out):
        summary = {"model": str(spec.model), **way, "files": [asdict(result) for result in results]}
        _write_json(spec.out / "summary.json", summary)
    return results


def _told(spec: PredictSpec, done: int, total: int) -> Callable[[float], None]:
    return lambda share: spec.progress(done + share, total, "")


def record_file(target: Path) -> Path:
    """Where it stands how a result came about."""
    return target.with_name(f"{target.name}.json")


def picture_file(target: Path, viewpoint: str) -> Path:
    """Where a result's picture lies."""
    return target.with_name(f"{target.name}.{viewpoint}.png")


def _form(spec: PredictSpec, trained: TrainedSpec) -> Form:
    """How the clouds lie in their files."""
    form = trained.recipe.form
    given = {"unit_m": spec.unit_m, "up": spec.up, "strength_max": spec.strength_max}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    return replace(form, **changes)


def _way(spec: PredictSpec, trained: TrainedSpec, passes: InferenceProtocol) -> dict[str, Any]:
    """All that decides what a file's result is."""
    images = _seeing(spec, trained)
    return {
        "version": VERSION,
        "checkpoint_sha256": trained.sha256,
        "class_names": list(trained.classes.names),
        "voxel_m": trained.recipe.voxel_m,
        "full": spec.full,
        "prevoxel_m": passes.protocol.prevoxel_m if spec.full else None,
        "views": [asdict(view) for view in passes.views],
        "max_points": passes.protocol.max_points,
        "margin_m": passes.protocol.margin_m,
        "precision": spec.precision,
        "images": None if images is None else asdict(images),
        "cameras": None if spec.cameras is None else asdict(spec.cameras),
        "form": asdict(_form(spec, trained)),
        "seen_from": spec.seen_from,
        "colors": spec.colors,
    }


def _one(
    spec: PredictSpec,
    voter: TestTimePredictor,
    trained: TrainedSpec,
    way: dict[str, Any],
    source: Source,
    progress: Callable[[float], None],
) -> Prediction:
    began = time.monotonic()
    try:
        check_labelled(source.path, source.target, colored=spec.colors)
        form, images = _form(spec, trained), _images(spec, trained, source.path)
        stamp = _stamp(source.path)
        if images is not None and spec.cameras is not None:
            stamp["cameras_sha256"] = images.digest()
        if not spec.overwrite:
            kept = _kept(spec, source, {**way, **stamp})
            if kept is not None:
                return kept
        columns = None
        if form.columns is not None and cloud_suffix(source.path) in TEXT:
            columns = fitting_columns(source.path, form.columns)
        scene = read_cloud(source.path, columns=columns, strength_max=form.strength_max)
        labels, notes, seen = _named(
            spec, voter, trained, images, scene, progress, source.path.name
        )
        if cloud_suffix(source.path) == ".laz" and is_copc(source.path):
            notes.append("is cloud-optimised (COPC); the result is plain LAZ")
        if "strength" in trained.needs:
            notes += _of_strength(source.path, scene, form.strength_max)
        for note in notes:
            spec.log(f"{source.path.name}: {note}")
        _write(spec, trained, source, scene, labels, columns)
    except UserError as error:
        return _failed(source, " ".join(str(error).split()))
    except Exception as error:  # whatever it is, the other files are not to wait for its cure
        return _failed(source, f"{type(error).__name__}: {' '.join(str(error).split())}")
    result = Prediction(
        source=str(source.path),
        status="done",
        target=str(source.target),
        points=len(labels),
        unlabelled=int((labels == IGNORE).sum()),
        classes=_counts(labels, trained.classes.names),
        seen=seen,
        seconds=round(time.monotonic() - began, 3),
        notes=tuple(notes),
    )
    _write_json(record_file(source.target), {**way, **stamp, "result": asdict(result)})
    return result


def _failed(source: Source, reason: str) -> Prediction:
    return Prediction(source=str(source.path), status="failed", reason=reason)


def _named(
    spec: PredictSpec,
    voter: TestTimePredictor,
    trained: TrainedSpec,
    images: CloudImages | None,
    scene: Scene,
    progress: Callable[[float], None],
    name: str,
) -> tuple[NDArray[np.int32], list[str], float | None]:
    """(N,) classes, what is to be said about them, and the share of the points that images show."""
    notes = []
    form = _form(spec, trained)
    cloud, index = finite_points(upright(scene, unit_m=form.unit_m, up=form.up))
    if len(cloud) == 0:
        raise UserError("holds no points" if len(scene) == 0 else "no point has a position")
    if len(cloud) < len(scene):
        notes.append(f"{len(scene) - len(cloud)} points have no position; their class is -1")
    doubt = check_scale(cloud, trained.recipe.voxel_m)
    if doubt is not None:
        if not spec.any_scale:
            raise UserError(f"{doubt} (--unit millimetre; --any-scale predicts it as it is)")
        notes.append(doubt)
    missing = [name for name in trained.needs if name not in cloud]
    if "normal" in missing:
        from pointseg.ops.normals import estimate_normals

        seen_from = spec.seen_from or DEFAULT_SEEN_FROM[trained.recipe.setting]
        towards = _viewpoint(cloud, seen_from)
        cloud = cloud.with_fields(normal=estimate_normals(cloud.coord, viewpoint=towards))
        notes.append(f"has no normals; they were estimated, {SEEN_FROM[seen_from]}")
        missing.remove("normal")
    if missing:
        raise UserError(
            f"lacks {', '.join(missing)}, which the model reads at every point; it needs "
            f"{', '.join(trained.needs)}: take a cloud that has them, or a model that was trained without"
        )
    labels = np.full(len(scene), IGNORE, np.int32)
    views, seen = None, None
    if images is not None:
        cloud, views, seen = images.given_to(name, cloud)
        notes.append(images.note(seen))
    labels[index] = voter.predict_labels(cloud, progress, views)
    return labels, notes, seen


def _of_strength(path: Path, scene: Scene, strength_max: float | None) -> list[str]:
    """What is to be said about the scale of the intensities."""
    values = file_strength(scene)
    if values is None:
        return []
    if strength_max is None and cloud_suffix(path) not in SCALED:
        taken = strength_scale(values)
        return [f"its intensities were taken to reach {taken} (--strength-max says otherwise)"]
    if strength_max is not None and usual_strength(values) > strength_max:
        return [f"more than 1 % of its intensities lie above {strength_max:g} (--strength-max)"]
    return []


def _check_images(spec: PredictSpec, trained: TrainedSpec) -> None:
    """Refuse images for a model that reads none, and none for one that does.

    Raises:
        UserError: either of these, or no encoder for the images.
    """
    images = _seeing(spec, trained)
    if images is None:
        given = {
            "--weights": spec.encoder, "--cameras": spec.cameras,
            "--image-views, --allow-unseen": spec.seeing,
        }  # fmt: skip
        idle = [option for option, value in given.items() if value is not None]
        if idle:
            raise UserError(
                f"{', '.join(idle)}: the model {spec.model} reads no images; leave out what is for such"
            )
        return
    if spec.encoder is None:
        raise UserError(
            f"model {spec.model}: reads features of {images.encoder}; give the weights it was trained with "
            "(--weights FILE)"
        )
    if spec.cameras is None and not images.allow_unseen:
        raise UserError(
            f"model {spec.model}: reads images; say where those of a cloud are with --cameras "
            "('organised' for RGB-D clouds, a manifest such as '{scene}.cameras.json', or the folder of COLMAP's "
            "text model), or predict without (--allow-unseen)"
        )


def _seeing(spec: PredictSpec, trained: TrainedSpec) -> ImageConfig | None:
    """How images are used, by a model that reads such."""
    images = trained.recipe.images
    return images if images is None or spec.seeing is None else spec.seeing(images)


def _images(spec: PredictSpec, trained: TrainedSpec, path: Path) -> CloudImages | None:
    """Those of a cloud, for a model that reads images."""
    recipe = _seeing(spec, trained)
    if recipe is None:
        return None
    return CloudImages.find(path, recipe, spec.cameras, _form(spec, trained))


def _viewpoint(scene: Scene, seen_from: str) -> NDArray[np.float64] | None:
    """(3,) where normals point to, as the scene's ``coord`` has it; None: upwards."""
    if seen_from == "up":
        return None
    if seen_from == "origin":
        return -scene.origin
    low, high = np.percentile(scene.coord, [1, 99], axis=0)  # a few outliers do not move the middle
    return np.asarray((low + high) / 2)


def _write(
    spec: PredictSpec,
    trained: TrainedSpec,
    source: Source,
    scene: Scene,
    labels: NDArray[np.int32],
    columns: Sequence[str] | None,
) -> None:
    source.target.parent.mkdir(parents=True, exist_ok=True)
    record_file(source.target).unlink(missing_ok=True)  # it would vouch for what is replaced now
    colors = trained.classes.colors
    painted = colors if spec.colors else None
    write_labelled(source.path, source.target, labels, colors=painted, columns=columns)
    if not spec.pictures:
        return
    form = _form(spec, trained)
    coord = upright(replace(scene, fields={}), unit_m=form.unit_m, up=form.up).coord
    for viewpoint in VIEWPOINTS:
        picture = labelled(coord, labels, trained.classes.names, colors, viewpoint=viewpoint)
        with new_file(picture_file(source.target, viewpoint)) as part:
            picture.save(part, format="PNG")


def _stamp(path: Path) -> dict[str, Any]:
    """What tells one state of a file, or of a folder's files, from another."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise CloudFileError(path, f"could not be read: {error.strerror or error}") from error
    return {
        "source_bytes": sum(stat.st_size for stat in stats),
        "source_changed_ns": max((stat.st_mtime_ns for stat in stats), default=0),
    }


def _kept(spec: PredictSpec, source: Source, way: dict[str, Any]) -> Prediction | None:
    """The result that is there, if it is whole and what would be made now."""
    try:
        told = json.loads(record_file(source.target).read_text(encoding="utf-8"))
        result = told.pop("result")
        if told != json.loads(json.dumps(way)) or result["source"] != str(source.path):
            return None
        if spec.pictures and not all(picture_file(source.target, v).is_file() for v in VIEWPOINTS):
            return None
        found = read_cloud(source.target)["segment"]
        if [len(found), _counts(found, way["class_names"])] != [
            result["points"],
            result["classes"],
        ]:
            return None
        return Prediction(**{**result, "status": "kept", "notes": tuple(result["notes"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # no record, or not one of ours: it is made again


def _counts(labels: NDArray[np.int32], names: Sequence[str]) -> dict[str, int]:
    """Points of each class that there is."""
    counts = np.bincount(labels[labels != IGNORE], minlength=len(names))
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as part:
        part.write_text(json.dumps(content, indent=1), encoding="utf-8")
