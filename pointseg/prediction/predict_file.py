"""One file predicted, in memory or through the disk, and written with its record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.axes import FileAxes
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.files import (
    LAS_SUFFIXES,
    check_labelled,
    cloud_suffix,
    name_notes,
    read_scaled,
    write_labelled,
)
from pointseg.files.columns.names import HEIGHT
from pointseg.files.labelling.certainty import MEASURES
from pointseg.files.labelling.labels import Labels
from pointseg.loading.scene_images import ImageSet
from pointseg.models.trained_model import TrainedSpec
from pointseg.prediction.how_predicted import WRITTEN_ONLY, how_predicted
from pointseg.prediction.inputs.cloud_images import CloudImages
from pointseg.prediction.inputs.input_files import Source
from pointseg.prediction.inputs.notes import file_notes
from pointseg.prediction.inputs.prepare_cloud import axes_of, prepare_cloud, refuse_clipped
from pointseg.prediction.results.class_codes import class_codes
from pointseg.prediction.results.class_counts import ClassCounts
from pointseg.prediction.results.heights import written_heights
from pointseg.prediction.results.pictures import write_pictures
from pointseg.prediction.results.point_classes import PointClasses, reject, reject_note
from pointseg.prediction.results.prediction import Prediction
from pointseg.prediction.results.record import file_state, record_file, valid_result, write_record
from pointseg.prediction.spec import PredictSpec
from pointseg.prediction.streaming.stream_cloud import Stream
from pointseg.prediction.streaming.thinned import thinned
from pointseg.prediction.streaming.unfinished import alone, discard, unfinished_folder
from pointseg.scene import IGNORE, Scene


class FilePredictor:
    """Predicts one file after the other."""

    def __init__(self, spec: PredictSpec, trained: TrainedSpec, predictor: ScenePredictor) -> None:
        """Take what is the same for all files.

        Args:
            spec: options.
            trained: what the model was trained with.
            predictor: of scenes, by the model.

        Raises:
            UserError: options that do not fit the model.
        """
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

    def _write(self, source: Source, found: PointClasses, notes: Sequence[str]) -> None:
        """Write the labelled file, and log the notes."""
        spec, classes = self.spec, self.trained.classes
        for note in notes:
            spec.log(f"{source.path.name}: {note}")
        source.target.parent.mkdir(parents=True, exist_ok=True)
        record_file(source.target).unlink(missing_ok=True)  # it describes the file that is replaced
        write_labelled(
            source.path,
            source.target,
            found.labels,
            colors=classes.colors if spec.colors else None,
            columns=self.cloud_format.columns_of(source.path),
            codes=self._codes(source),
            certainty=found.certainty if spec.confidence else None,
            legend=classes.names,
            heights=found.heights,
            keeps_former=spec.keep_former,
        )

    def _codes(self, source: Source) -> tuple[int, ...] | None:
        """The codes of the classes, where they are written: into LAS files, or all if that was asked for."""
        is_las = cloud_suffix(source.target) in LAS_SUFFIXES
        return self.codes if is_las or self.spec.write_classification else None

    def _outcome(self, source: Source, classes: PointClasses, notes: Sequence[str]) -> Prediction:
        pieces = (part for _, part in Labels(classes.labels).pieces())
        found = ClassCounts.of(pieces, self.trained.classes.names)
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
