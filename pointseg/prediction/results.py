"""Results on disk: the labelled file, its pictures, and the record that says how it was made."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file
from pointseg.datasets.axes import FileAxes, upright
from pointseg.datasets.classes import ClassList
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.saved_labels import write_json
from pointseg.files import CloudFileError, in_pieces, read_columns, write_labelled
from pointseg.files.columns.fields import labels_in
from pointseg.files.table.pieces import PIECE
from pointseg.geometry.ground import ground_settings
from pointseg.pictures import labelled
from pointseg.pictures.viewpoints import VIEWPOINTS
from pointseg.prediction.input_files import Source
from pointseg.prediction.point_classes import PointClasses
from pointseg.prediction.spec import Prediction, PredictSpec
from pointseg.scene import IGNORE, Scene
from pointseg.training.checkpoint import TrainedSpec

VERSION = 2
"""Of the prediction of files; results of other versions are made again."""
COLORS = "class_colors"
"""What records call the colours of the classes, which decide no class: records without them stay valid."""


def record_file(target: Path) -> Path:
    """The file that says how a result was made."""
    return target.with_name(f"{target.name}.json")


def picture_file(target: Path, viewpoint: str) -> Path:
    """The picture of a result from one viewpoint."""
    return target.with_name(f"{target.name}.{viewpoint}.png")


def how_predicted(
    spec: PredictSpec,
    trained: TrainedSpec,
    protocol: InferenceProtocol,
    codes: tuple[int, ...] | None,
) -> dict[str, Any]:
    """Everything that decides the result of a file, apart from the file."""
    images = spec.images(trained.recipe)
    asked = {
        "confidence": spec.confidence or None,
        "reject": spec.reject,
        "write_classification": spec.write_classification or None,
        "keep_former": None if spec.keep_former else False,
        "height": ground_settings() if spec.height else None,
    }
    return {
        "version": VERSION,
        "checkpoint_sha256": trained.sha256,
        "class_names": list(trained.classes.names),
        "voxel_m": trained.recipe.voxel_m,
        **protocol.as_dict(),
        "precision": spec.precision,
        "images": None if images is None else asdict(images),
        "cameras": None if spec.cameras is None else asdict(spec.cameras),
        "cloud_format": asdict(spec.cloud_format(trained.recipe)),
        "orient_normals": spec.orient_normals,
        "colors": spec.colors,
        "class_codes": None if codes is None else list(codes),
        **{name: value for name, value in asked.items() if value is not None},
    }


def file_state(path: Path) -> dict[str, Any]:
    """Size and time of change of a file, or of the files of a folder.

    Raises:
        CloudFileError: it cannot be read.
    """
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    try:
        stats = [file.stat() for file in files]
    except OSError as error:
        raise CloudFileError(path, f"could not be read: {error.strerror or error}") from error
    return {
        "source_bytes": sum(stat.st_size for stat in stats),
        "source_changed_ns": max((stat.st_mtime_ns for stat in stats), default=0),
    }


def valid_result(source: Source, how: dict[str, Any], *, pictures: bool) -> Prediction | None:
    """The existing result of a file, if it is complete and would be the same now."""
    try:
        record = json.loads(record_file(source.target).read_text(encoding="utf-8"))
        result = record.pop("result")
        record.pop(COLORS, None)
        if record != json.loads(json.dumps(how)) or result["source"] != str(source.path):
            return None
        if pictures and not all(picture_file(source.target, v).is_file() for v in VIEWPOINTS):
            return None
        columns = how["cloud_format"]["bin_columns"]
        found = Found.of(_labels_in(source.target, columns), how["class_names"])
        if (found.points, found.classes) != (result["points"], result["classes"]):
            return None
        return Prediction(**{**result, "status": "kept", "notes": tuple(result["notes"])})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None  # no record, or not one of ours


def write_result(
    source: Source,
    found: PointClasses,
    classes: ClassList,
    *,
    columns: Sequence[str] | None,
    spec: PredictSpec,
    codes: tuple[int, ...] | None,
) -> None:
    """Write the labelled file.

    Args:
        source: input and output file.
        found: the classes of its points.
        classes: their names and colours.
        columns: names of the columns of text and ``.bin`` scans, as for ``read_cloud``.
        spec: which fields and colours points get.
        codes: of the classes in ``classification``; None: there are none, that of LAS files stays as it is.
    """
    source.target.parent.mkdir(parents=True, exist_ok=True)
    record_file(source.target).unlink(missing_ok=True)  # it describes the file that is replaced now
    write_labelled(
        source.path,
        source.target,
        found.labels,
        colors=classes.colors if spec.colors else None,
        columns=columns,
        codes=codes,
        certainty=found.certainty if spec.confidence else None,
        legend=classes.names,
        heights=found.heights,
        keeps_former=spec.keep_former,
    )


def write_pictures(
    target: Path,
    scene: Scene,
    labels: NDArray[np.int32],
    classes: ClassList,
    axes: FileAxes,
) -> None:
    """Write pictures of a result.

    Args:
        target: the result.
        scene: its points, in unit and axes of the file.
        labels: (N,) their classes.
        classes: their names and colours.
        axes: unit and vertical axis of the file.
    """
    bare = replace(scene, fields={})
    coord = upright(bare, unit_m=axes.unit_m, up=axes.up).coord
    for viewpoint in VIEWPOINTS:
        picture = labelled(coord, labels, classes.names, classes.colors, viewpoint=viewpoint)
        with new_file(picture_file(target, viewpoint)) as part:
            picture.save(part, format="PNG")


def write_record(target: Path, how: dict[str, Any], classes: ClassList, result: Prediction) -> None:
    """Write how a result was made, which makes it valid."""
    colors = {COLORS: classes.colors.tolist()}
    write_json(record_file(target), {**how, **colors, "result": asdict(result)})


@dataclass(frozen=True)
class Found:
    """What classes a cloud has."""

    points: int
    """How many there are."""
    unlabelled: int
    """How many of them have no class."""
    classes: dict[str, int]
    """Points of each class that occurs."""

    @classmethod
    def of(cls, parts: Iterable[NDArray[np.int32]], names: Sequence[str]) -> Found:
        """Count the labels of all pieces of a cloud."""
        points = unlabelled = 0
        counts = np.zeros(len(names), np.int64)
        for labels in parts:
            known = labels[labels != IGNORE]
            points += len(labels)
            unlabelled += len(labels) - len(known)
            counts += np.bincount(known, minlength=len(names))
        found = {name: int(count) for name, count in zip(names, counts, strict=True) if count}
        return cls(points, unlabelled, found)


def _labels_in(path: Path, columns: Sequence[str] | None) -> Iterator[NDArray[np.int32]]:
    """The labels of a file, in pieces where its type can be read so."""
    parts: Iterable[Mapping[str, NDArray[Any]]]
    try:
        parts = in_pieces(path, columns).read(PIECE)
    except CloudFileError:
        parts = [read_columns(path)]
    for part in parts:
        found = labels_in(part)
        if found is None:
            raise KeyError("segment")
        yield found
