"""Predict files of points: each file comes out with a class for every point; a bad file does not stop the others."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.hub.local_model import name_or_path
from dinomed3d.runtime.atomic_files import remove_leftovers
from dinomed3d.runtime.errors import UserError
from pointseg.datasets.axes import FileAxes
from pointseg.evaluation.image_options import OPTION_OF, refuse_image_options
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.saved_labels import write_json
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.files import LAS_SUFFIXES, check_labelled, cloud_suffix, name_notes, read_scaled
from pointseg.files.columns.names import HEIGHT
from pointseg.files.labelling.certainty import MEASURES
from pointseg.files.labelling.labels import Labels
from pointseg.loading.scene_images import ImageSet
from pointseg.prediction.class_codes import class_codes
from pointseg.prediction.cloud_images import CloudImages
from pointseg.prediction.heights import written_heights
from pointseg.prediction.input_files import Source, find_sources
from pointseg.prediction.point_classes import PointClasses, reject, reject_note
from pointseg.prediction.prepare_cloud import axes_of, file_notes, prepare_cloud, refuse_clipped
from pointseg.prediction.results import (
    Found,
    file_state,
    how_predicted,
    valid_result,
    write_pictures,
    write_record,
    write_result,
)
from pointseg.prediction.spec import Prediction, PredictSpec
from pointseg.prediction.stream_cloud import Stream
from pointseg.prediction.thinned import thinned
from pointseg.prediction.unfinished import alone, discard, unfinished_folder
from pointseg.scene import IGNORE, Scene
from pointseg.training.checkpoint import TrainedSpec, load_model

WRITTEN_ONLY = (
    "colors", "class_codes", "confidence", "reject", "write_classification", "keep_former", "height"
)  # fmt: skip
"""Of what decides a result, what does not decide the classes."""


def predict(spec: PredictSpec) -> list[Prediction]:
    """Predict all files; writes a record (``.json``) and pictures next to each result, and ``summary.json``.

    Existing results are kept if they are complete and were made from the same file by the same model in the
    same way. What killed runs have left half-written is removed.

    Raises:
        UserError: no model, no files, several results with one name, or options that do not fit the model.
    """
    sources = find_sources(spec.inputs, spec.out)
    targets = [source.target for source in sources]
    remove_leftovers({*targets, *(target.parent for target in targets)})  # clouds may be folders
    model, trained = load_model(
        spec.model, spec.device, encoder=spec.encoder, backbone=spec.backbone
    )
    for note in trained.notes:
        spec.log(f"model {spec.model}: {note}")
    _check_image_options(spec, trained)
    config = replace(trained.recipe.test, **spec.test_changes)
    predictor = ScenePredictor(
        model,
        trained.recipe,
        len(trained.classes),
        InferenceProtocol(config=config, single_pass=not spec.tta),
        device=spec.device,
        precision=spec.precision,
        log=spec.log,
    )
    job = _Job(spec, trained, predictor)
    results = []
    for number, source in enumerate(sources):
        spec.progress(number, len(sources), source.path.name)

        def report(share: float, name: str = "", number: int = number) -> None:
            spec.progress(number + share, len(sources), name)

        results.append(job.predict(source, report))
    spec.progress(len(sources), len(sources), "")
    if not (len(sources) == 1 and sources[0].target == spec.out):
        files = [asdict(result) for result in results]
        summary = {"model": name_or_path(spec.model), **job.how, "files": files}
        write_json(spec.out / "summary.json", summary)
    return results


class _Job:
    """Predicts one file after the other."""

    def __init__(self, spec: PredictSpec, trained: TrainedSpec, predictor: ScenePredictor) -> None:
        self.spec, self.trained, self.predictor = spec, trained, predictor
        self.codes = class_codes(
            trained.classes,
            spec.class_codes,
            keep=spec.keep_classification,
            log=spec.log,
            required=spec.write_classification,
        )
        if spec.height and trained.recipe.input.unit_sphere:
            raise UserError(
                "--height: the model scales clouds to a unit sphere, they have no metres"
            )
        self.how = how_predicted(spec, trained, predictor.protocol, self.codes)
        self.cloud_format = spec.cloud_format(trained.recipe)
        self.stream = Stream(
            trained.recipe,
            predictor,
            self.cloud_format,
            spec.check_scale,
            spec.log,
            needs_certainty=spec.needs_certainty,
            reject=spec.reject,
            with_heights=spec.height,
        )

    def predict(self, source: Source, progress: Callable[..., None]) -> Prediction:
        """Predict a file; any error becomes its result, so that the other files are predicted."""
        try:
            return self._predict(source, progress)
        except UserError as error:
            reason = str(error)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
        return Prediction(source=str(source.path), status="failed", reason=" ".join(reason.split()))

    def _predict(self, source: Source, progress: Callable[..., None]) -> Prediction:
        began, spec = time.monotonic(), self.spec
        check_labelled(
            source.path,
            source.target,
            colored=spec.colors,
            codes=self._codes(source),
            measured=spec.confidence,
            heights=spec.height,
        )
        axes, unit_notes = axes_of(source.path, self.cloud_format)
        images = self._images(source.path, axes)
        how = {**self.how, **file_state(source.path)}
        if images is not None and spec.cameras is not None:
            how["cameras_sha256"] = images.digest()
        if not spec.overwrite:
            kept = valid_result(source, how, pictures=spec.pictures)
            if kept is not None:
                return kept
        if spec.stream or self.stream.is_better(source.path):
            outcome = self._streamed(source, how, axes, progress)
        else:
            outcome = self._in_memory(source, images, axes, unit_notes, progress)
        result = replace(outcome, seconds=round(time.monotonic() - began, 3))
        write_record(source.target, how, self.trained.classes, result)
        discard(unfinished_folder(source.target))
        return result

    def _in_memory(
        self,
        source: Source,
        images: CloudImages | None,
        axes: FileAxes,
        unit_notes: Sequence[str],
        progress: Callable[..., None],
    ) -> Prediction:
        """Predict and write a cloud that is read as a whole."""
        spec, recipe = self.spec, self.trained.recipe
        columns = self.cloud_format.columns_of(source.path)
        ranges = self.cloud_format.ranges
        scene, scales = read_scaled(source.path, columns=columns, stated=ranges)
        refuse_clipped(scales, recipe)
        prepared = prepare_cloud(
            scene,
            recipe,
            axes,
            orient_normals=spec.orient_normals,
            refuse_scale=spec.check_scale,
            unfilled=scales.unfilled,
        )
        cloud, notes = prepared.cloud, [*unit_notes, *prepared.notes]
        views, visible = None, None
        if images is not None:
            cloud, views, visible = images.add_to(source.path.name, cloud)
            notes.append(images.note(visible))
        found = self._classes(len(scene), prepared.index, cloud, progress, views)
        if spec.height:
            heights = np.full(len(scene), np.nan, np.float32)
            is_found = HEIGHT in recipe.needs
            heights[prepared.index] = written_heights(prepared.cloud, is_found=is_found)
            found = replace(found, heights=heights)
        notes += file_notes(source.path, scales, recipe) + name_notes(source.path, columns)
        notes += self._reject_notes(found)
        self._write(source, found, notes)
        if spec.pictures:
            write_pictures(source.target, scene, found.labels[:], self.trained.classes, axes)
        return replace(self._outcome(source, found, notes), visible=visible)

    def _classes(
        self,
        count: int,
        index: NDArray[np.int64],
        cloud: Scene,
        progress: Callable[..., None],
        views: ImageSet | None,
    ) -> PointClasses:
        """Of all points of a file in memory, of which a cloud has some, those of the index."""
        labels = np.full(count, IGNORE, np.int32)
        if not self.spec.needs_certainty:
            labels[index] = self.predictor.predict_labels(cloud, progress, views)
            return PointClasses(labels=labels)
        certainty = np.zeros((count, len(MEASURES)), np.uint16)
        found = self.predictor.predict_certainty(cloud, progress, views)
        labels[index], certainty[index] = found
        rejected = 0
        if self.spec.reject is not None:
            rejected = reject(labels, certainty, self.spec.reject)
        return PointClasses(labels=labels, certainty=certainty, rejected=rejected)

    def _streamed(
        self,
        source: Source,
        how: dict[str, Any],
        axes: FileAxes,
        progress: Callable[..., None],
    ) -> Prediction:
        """Predict and write a cloud that goes through the disk."""
        spec = self.spec
        deciding = {key: value for key, value in how.items() if key not in WRITTEN_ONLY}
        with alone(unfinished_folder(source.target)) as folder:
            found, notes = self.stream.predict(source.path, folder, deciding, progress)
            notes = [*notes, *self._reject_notes(found)]
            self._write(source, found, notes)
            if spec.pictures:
                scene, some = thinned(
                    source.path, found.labels, self.cloud_format.columns_of(source.path)
                )
                classes = self.trained.classes
                write_pictures(source.target, scene, some, classes, axes)
            outcome = self._outcome(source, found, notes)
        shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _reject_notes(self, found: PointClasses) -> list[str]:
        if self.spec.reject is None or not found.rejected:
            return []
        return [reject_note(found.rejected, len(found.labels), self.spec.reject)]

    def _write(
        self,
        source: Source,
        found: PointClasses,
        notes: Sequence[str],
    ) -> None:
        for note in notes:
            self.spec.log(f"{source.path.name}: {note}")
        write_result(
            source,
            found,
            self.trained.classes,
            columns=self.cloud_format.columns_of(source.path),
            spec=self.spec,
            codes=self._codes(source),
        )

    def _codes(self, source: Source) -> tuple[int, ...] | None:
        """The codes of the classes, where they are written: into LAS files, or all if that was asked for."""
        is_las = cloud_suffix(source.target) in LAS_SUFFIXES
        return self.codes if is_las or self.spec.write_classification else None

    def _outcome(self, source: Source, classes: PointClasses, notes: Sequence[str]) -> Prediction:
        pieces = (part for _, part in Labels(classes.labels).pieces())
        found = Found.of(pieces, self.trained.classes.names)
        return Prediction(
            source=str(source.path),
            status="done",
            target=str(source.target),
            points=found.points,
            unlabelled=found.unlabelled - classes.rejected,
            rejected=None if self.spec.reject is None else classes.rejected,
            classes=found.classes,
            notes=tuple(notes),
        )

    def _images(self, path: Path, axes: FileAxes) -> CloudImages | None:
        """The images of a cloud, for a model that reads images."""
        recipe = self.spec.images(self.trained.recipe)
        if recipe is None:
            return None
        return CloudImages.find(path, recipe, self.spec.cameras, axes)


def _check_image_options(spec: PredictSpec, trained: TrainedSpec) -> None:
    """Refuse image options for a model that reads no images, and a lack of them for one that does."""
    images = spec.images(trained.recipe)
    if images is None:
        changes: dict[str, Any] = {
            OPTION_OF[key]: value for key, value in spec.image_changes.items()
        }
        given = {"--weights": spec.encoder, "--cameras": spec.cameras, **changes}
        refuse_image_options(spec.model, given)
        return
    if spec.encoder is None:
        raise UserError(
            f"model {spec.model}: reads features of {images.encoder}; give the weights it was trained with "
            "(--weights FILE)"
        )
    if spec.cameras is None and not images.allow_missing_images:
        raise UserError(
            f"model {spec.model}: reads images; say where those of a cloud are with --cameras ('organised' for RGB-D "
            "clouds, a manifest such as '{scene}.cameras.json', or the folder of a COLMAP text model), or predict "
            "without (--allow-missing-images)"
        )
