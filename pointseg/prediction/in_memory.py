"""A trained model for Python programs: loaded once, arrays or a file in, classes out, nothing written."""

from __future__ import annotations

import threading
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from dinomed3d.runtime.device import choose_device
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hub_model import CLOUD, local_model
from pointseg.conventions import PRECISIONS
from pointseg.datasets.axes import FileAxes
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.files import read_scaled
from pointseg.files.origin import split_origin
from pointseg.prediction.prepare_cloud import PreparedCloud, axes_of, prepare_cloud, refuse_clipped
from pointseg.scene import IGNORE, Scene
from pointseg.training.checkpoint import TrainedSpec
from pointseg.training.checkpoint import load_model as read_model

AS_STORED = FileAxes(1.0, "z")
"""Arrays are in metres with z up."""


class LabelledPoints(NamedTuple):
    """Classes of points, and how sure the network is of them."""

    labels: NDArray[np.int32]
    """(N,) classes; -1 for points whose position is not finite."""
    probabilities: NDArray[np.float32]
    """(N, K), rows sum to 1; 0 for points whose position is not finite."""


def load_model(
    path: str | PathLike[str],
    *,
    device: str = "auto",
    tta: bool = False,
    precision: str = "float32",
    check_scale: bool = True,
) -> PointSegmenter:
    """Load a checkpoint of ``pointseg-train``.

    Args:
        path: the checkpoint, or `hf:owner/name` on the Hugging Face hub.
        device: auto, cpu, cuda or mps.
        tta: whether to predict as in tests, every point and with test-time augmentation, instead of one pass over
            one point per voxel.
        precision: float32, float16 or bfloat16.
        check_scale: whether clouds are refused whose scale does not seem to fit the voxel size of the model.

    Raises:
        UserError: the checkpoint cannot be used, or it reads images.

    Classes are those of ``pointseg-predict`` with the same options.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"load_model: 'precision' must be one of {', '.join(PRECISIONS)}, got {precision!r}"
        )
    file = local_model(path, CLOUD)
    if file.is_dir():
        raise UserError(
            f"load_model: {file} is a folder; give the checkpoint in it, such as {file / 'best.pt'} (models of "
            "volumes are for dinomed3d.load_model)"
        )
    chosen = choose_device(device)
    model, trained = read_model(file, chosen)
    if trained.recipe.images is not None:
        raise UserError(
            f"load_model: {path} reads images, which arrays do not come with; use pointseg-predict --cameras, or a "
            "model that learned from images and needs none (pointseg-distill, then pointseg-train --init)"
        )
    protocol = InferenceProtocol(config=trained.recipe.test, single_pass=not tta)
    predictor = ScenePredictor(
        model,
        trained.recipe,
        len(trained.classes),
        protocol,
        device=chosen,
        precision=precision,
    )
    return PointSegmenter(predictor, trained, check_scale=check_scale)


class PointSegmenter:
    """A model in memory. Threads may share it; their clouds go through the network one after the other."""

    def __init__(
        self, predictor: ScenePredictor, trained: TrainedSpec, *, check_scale: bool
    ) -> None:
        """Make it from a loaded model; `load_model` does."""
        self._predictor, self._trained, self._check_scale = predictor, trained, check_scale
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their places are the labels."""
        return self._trained.classes.names

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads of every point as well as the position: color, normal, strength, ..."""
        return self._trained.needs

    def predict(
        self,
        points: ArrayLike | Scene | str | PathLike[str],
        *,
        color: ArrayLike | None = None,
        normal: ArrayLike | None = None,
        intensity: ArrayLike | None = None,
        probabilities: bool = False,
        progress: Callable[[float], None] = lambda share: None,
    ) -> NDArray[np.int32] | LabelledPoints:
        """Find the class of every point.

        Args:
            points: (N, 3) positions in metres with z up, a scene with its fields, or the path of a cloud's file, whose
                unit, vertical axis and ranges are understood as in training.
            color: (N, 3) red, green, blue from 0 to 255; with an array.
            normal: (N, 3) directions; with an array. Missing ones are estimated where the model reads them.
            intensity: (N,) from 0 to 1; with an array.
            probabilities: whether to return those of all classes, too.
            progress: is called with the share of the work that is done.

        Returns:
            (N,) classes, -1 for points whose position is not finite; with ``probabilities`` both.

        Raises:
            UserError: the points lack what the model reads, their scale does not fit its voxels, or a file cannot be
                read; in one sentence.
        """
        given: dict[str, Any] = {"color": color, "normal": normal, "strength": intensity}
        count, prepared = self._prepared(points, given)
        with self._lock:
            found, scores = self._run(prepared.cloud, probabilities, progress)
        labels = np.full(count, IGNORE, np.int32)
        labels[prepared.index] = found
        if scores is None:
            return labels
        of_all = np.zeros((count, scores.shape[1]), np.float32)
        of_all[prepared.index] = scores
        return LabelledPoints(labels, of_all)

    def _run(
        self, cloud: Scene, probabilities: bool, progress: Callable[[float], None]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        if probabilities:
            return self._predictor.predict_probabilities(cloud, progress)
        return self._predictor.predict_labels(cloud, progress), None

    def _prepared(self, points: Any, given: dict[str, Any]) -> tuple[int, PreparedCloud]:
        """The number of points given, and those that have a position, as the model reads them."""
        recipe = self._trained.recipe
        if not isinstance(points, str | PathLike):
            scene = _scene(points, given)
            return len(scene), self._prepare(scene, AS_STORED)
        if surplus := [name for name, values in given.items() if values is not None]:
            raise UserError(f"predict: {points} is a file, which has its own {', '.join(surplus)}")
        path, cloud_format = Path(points), recipe.cloud_format
        if not path.exists():
            raise UserError(f"{path}: no such file")
        axes, _ = axes_of(path, cloud_format)
        columns = cloud_format.columns_of(path)
        scene, scales = read_scaled(path, columns=columns, stated=cloud_format.ranges)
        refuse_clipped(scales, recipe)
        return len(scene), self._prepare(scene, axes, unfilled=scales.unfilled)

    def _prepare(self, scene: Scene, axes: FileAxes, **unfilled: Any) -> PreparedCloud:
        recipe = self._trained.recipe
        return prepare_cloud(scene, recipe, axes, refuse_scale=self._check_scale, **unfilled)


def _scene(points: Any, given: dict[str, Any]) -> Scene:
    """Arrays as a scene, checked."""
    if isinstance(points, Scene):
        if any(values is not None for values in given.values()):
            raise UserError("predict: 'points' is a scene, which has its own fields")
        return points
    coord = _array(points, "points", 3).astype(np.float64)
    relative, origin = split_origin(coord)
    fields = {}
    for name, values in given.items():
        if values is not None:
            fields[name] = _field(name, values, len(coord))
    return Scene(coord=relative, fields=fields, origin=origin)


def _field(name: str, values: Any, count: int) -> NDArray[np.float32]:
    """One field of arrays, in its range."""
    word = "intensity" if name == "strength" else name
    array = _array(values, word, 1 if name == "strength" else 3)
    if len(array) != count:
        raise UserError(
            f"predict: '{word}' must have a row for each of the {count} points, got {len(array)}"
        )
    if not np.isfinite(array).all():
        raise UserError(f"predict: '{word}' must be finite")
    largest = {"color": 255.0, "strength": 1.0}.get(name)
    if largest is not None and count:
        low, high = float(array.min()), float(array.max())
        is_fraction = name == "color" and 0 < high <= 1 and array.dtype.kind == "f"
        if low < 0 or high > largest or is_fraction:
            raise UserError(
                f"predict: '{word}' must be from 0 to {largest:g}, got {low:g} to {high:g}; scale it as in training"
            )
    return array.astype(np.float32)


def _array(values: Any, name: str, columns: int) -> NDArray[Any]:
    """Numbers with so many columns, of what the caller gave: an array, a tensor or lists."""
    shape = "(N)" if columns == 1 else f"(N, {columns})"
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    try:
        array = np.asarray(values)
    except ValueError:  # rows of different lengths
        array = np.empty((), object)
    if array.dtype.kind not in "fiu":
        raise UserError(f"predict: '{name}' must be {shape} numbers, got {type(values).__name__}")
    if columns == 1 and array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.shape[1] != columns:
        raise UserError(f"predict: '{name}' must be {shape}, got {array.shape}")
    return array
