"""A trained model for Python programs: loaded once, arrays or a file in, classes out, nothing written."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dinomed3d.hub.local_model import CLOUD, local_model
from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.hardware.device import check_precision, choose_device
from dinomed3d.runtime.messages.counted import shortly
from dinomed3d.runtime.messages.terminal_text import one_line
from pointseg.config.precision import encoder_dtype
from pointseg.conventions import PRECISIONS
from pointseg.datasets.axes import FileAxes, upright_frames
from pointseg.evaluation.inference_protocol import InferenceProtocol
from pointseg.evaluation.scene_predictor import ScenePredictor
from pointseg.files import read_scaled
from pointseg.files.coordinate_systems.units import one_unit
from pointseg.images.config import ImageConfig
from pointseg.images.readers.arrays import require_frames, warn_of_intrinsics
from pointseg.loading.scene_images import ImageSet
from pointseg.models.image_encoder import trained_with
from pointseg.models.trained_model import TrainedSpec
from pointseg.models.trained_model import load_model as read_model
from pointseg.prediction.array_scene import scene_of_arrays
from pointseg.prediction.inputs.advice import ARRAYS, Advice, of_file
from pointseg.prediction.inputs.cloud_images import CloudImages
from pointseg.prediction.inputs.prepare_cloud import axes_of, prepare_cloud, refuse_clipped
from pointseg.scene import IGNORE, Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

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
    weights: str | PathLike[str] | None = None,
    device: str = "auto",
    tta: bool = False,
    precision: str = "float32",
    check_scale: bool = True,
) -> PointSegmenter:
    """Load a checkpoint of ``pointseg-train``.

    Args:
        path: the checkpoint, or `hf:owner/name` on the Hugging Face hub.
        weights: of the image encoder that the model was trained with, a file or folder, or "hub", which downloads them;
            for models that read images.
        device: auto, cpu, cuda or mps.
        tta: whether to predict as in tests, every point and with test-time augmentation, instead of one pass over
            one point per voxel.
        precision: float32, float16 or bfloat16.
        check_scale: whether clouds are refused whose scale does not seem to fit the voxel size of the model.

    Raises:
        UserError: the checkpoint cannot be used; a CPU has no instructions for the precision; ``weights`` are
            missing or others than in training, or given for a model that reads no images.

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
    check_precision(precision, chosen, "load_model: 'precision'")
    encoder = None
    if weights is not None:
        encoder = trained_with(os.fspath(weights), precision=encoder_dtype(precision, chosen))
    model, trained = read_model(file, chosen, encoder=encoder)
    _require_weights(path, weights, trained.recipe.images)
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


def _require_weights(path: Any, weights: Any, images: ImageConfig | None) -> None:
    """Weights of an image encoder are for models that read images, which cannot do without."""
    if images is None and weights is not None:
        raise UserError(f"load_model: 'weights': the model {path} reads no images; leave them out")
    if images is not None and weights is None:
        raise UserError(
            f"load_model: {path} reads features of {images.encoder}; give the weights it was trained with "
            "(weights=FILE)"
        )


class PointSegmenter:
    """A model in memory. Threads may share it; their clouds go through the network one after the other."""

    def __init__(
        self, predictor: ScenePredictor, trained: TrainedSpec, *, check_scale: bool
    ) -> None:
        """Make it from a loaded model; `load_model` does."""
        self._predictor, self._trained, self._check_scale = predictor, trained, check_scale
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """In one line what it is: backbone, classes, what it reads, voxel size and device."""
        recipe, used = self._trained.recipe, self._predictor.tile_predictor
        parts = [recipe.backbone, f"classes {shortly(self.classes)}"]
        parts += [f"reads {', '.join(self.needs)}"] if self.needs else []
        parts += [] if recipe.images is None else [f"images through {recipe.images.encoder}"]
        parts += [f"voxels of {recipe.voxel_m:g} m", f"{used.precision} on {used.device}"]
        return one_line(f"<{type(self).__name__}: {'; '.join(parts)}>")

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; their places are the labels."""
        return self._trained.classes.names

    @property
    def needs(self) -> tuple[str, ...]:
        """What it reads of every point as well as the position: color, normal, strength, ..."""
        return self._trained.needs

    @overload
    def predict(
        self,
        points: ArrayLike | Scene | str | PathLike[str],
        *,
        color: ArrayLike | None = ...,
        normal: ArrayLike | None = ...,
        intensity: ArrayLike | None = ...,
        frames: Sequence[Frame] | None = ...,
        probabilities: Literal[False] = ...,
        progress: Callable[[float], None] = ...,
    ) -> NDArray[np.int32]: ...

    @overload
    def predict(
        self,
        points: ArrayLike | Scene | str | PathLike[str],
        *,
        color: ArrayLike | None = ...,
        normal: ArrayLike | None = ...,
        intensity: ArrayLike | None = ...,
        frames: Sequence[Frame] | None = ...,
        probabilities: Literal[True],
        progress: Callable[[float], None] = ...,
    ) -> LabelledPoints: ...

    @overload
    def predict(
        self,
        points: ArrayLike | Scene | str | PathLike[str],
        *,
        color: ArrayLike | None = ...,
        normal: ArrayLike | None = ...,
        intensity: ArrayLike | None = ...,
        frames: Sequence[Frame] | None = ...,
        probabilities: bool,
        progress: Callable[[float], None] = ...,
    ) -> NDArray[np.int32] | LabelledPoints: ...

    def predict(
        self,
        points: ArrayLike | Scene | str | PathLike[str],
        *,
        color: ArrayLike | None = None,
        normal: ArrayLike | None = None,
        intensity: ArrayLike | None = None,
        frames: Sequence[Frame] | None = None,
        probabilities: bool = False,
        progress: Callable[[float], None] = lambda share: None,
    ) -> NDArray[np.int32] | LabelledPoints:
        """Find the class of every point.

        Args:
            points: (N, 3) positions in metres with z up, a scene with its fields (``color`` from 0 to 255, ``strength``
                from 0 to 1), or the path of a cloud's file, whose unit, vertical axis and ranges are understood as in
                training.
            color: (N, 3) red, green, blue from 0 to 255; with an array.
            normal: (N, 3) directions; with an array. Missing ones are estimated where the model reads them.
            intensity: (N,) from 0 to 1; with an array.
            frames: posed images, as ``pointseg.array_frame`` makes them, for models that read images; poses are in the
                world of the points, or of the file. Of more than the recipe's ``views``, evenly spread ones are used.
            probabilities: whether to return those of all classes, too.
            progress: is called with the share of the work that is done.

        Returns:
            (N,) classes, -1 for points whose position is not finite; with ``probabilities`` both.

        Raises:
            UserError: the points lack what the model reads, or have it in another range, their scale does not fit its
                voxels, or a file cannot be read; images are missing, given to a model that reads none, or show no
                point; in one sentence.
        """
        given: dict[str, Any] = {"color": color, "normal": normal, "strength": intensity}
        used = self._checked(frames)
        warn_of_intrinsics("predict", used)
        ready = self._ready(points, given, used)
        with self._lock:
            found, scores = self._run(ready.cloud, ready.views, probabilities, progress)
        labels = np.full(ready.count, IGNORE, np.int32)
        labels[ready.index] = found
        if scores is None:
            return labels
        of_all = np.zeros((ready.count, scores.shape[1]), np.float32)
        of_all[ready.index] = scores
        return LabelledPoints(labels, of_all)

    def _run(
        self,
        cloud: Scene,
        views: ImageSet | None,
        probabilities: bool,
        progress: Callable[[float], None],
    ) -> tuple[NDArray[np.int32], NDArray[np.float32] | None]:
        if probabilities:
            return self._predictor.predict_probabilities(cloud, progress, views)
        return self._predictor.predict_labels(cloud, progress, views), None

    def _checked(self, frames: Any) -> tuple[Frame, ...]:
        """The posed images, none for a model that reads none or can do without."""
        images = self._trained.recipe.images
        if images is None:
            if frames is not None:
                raise UserError("predict: 'frames': the model reads no images; leave them out")
            return ()
        is_none = frames is None or (isinstance(frames, Sequence) and not frames)
        if is_none and images.allow_missing_images:
            return ()
        if frames is None:
            raise UserError(
                "predict: the model reads images; give them, such as "
                "frames=[pointseg.array_frame(image, K, camera_to_world=pose)]"
            )
        require_frames("predict", frames)
        return tuple(frames)

    def _ready(self, points: Any, given: dict[str, Any], frames: tuple[Frame, ...]) -> _Ready:
        """The points that have a position, as the model reads them."""
        recipe = self._trained.recipe
        if not isinstance(points, str | PathLike):
            scene = scene_of_arrays(points, given, recipe.needs)
            return self._prepare(scene, AS_STORED, frames, ARRAYS)
        if surplus := [name for name, values in given.items() if values is not None]:
            raise UserError(f"predict: {points} is a file, which has its own {', '.join(surplus)}")
        path, cloud_format = Path(points), recipe.cloud_format
        if not path.exists():
            raise UserError(f"{path}: no such file")
        axes, _ = axes_of(path, cloud_format)
        if frames:
            frames = upright_frames(frames, unit_m=one_unit(path, axes.unit_m), up=axes.up)
        columns = cloud_format.columns_of(path)
        scene, scales = read_scaled(path, columns=columns, stated=cloud_format.ranges)
        advice = of_file(path)
        refuse_clipped(scales, recipe, advice)
        return self._prepare(scene, axes, frames, advice, unfilled=scales.unfilled)

    def _prepare(
        self,
        scene: Scene,
        axes: FileAxes,
        frames: tuple[Frame, ...],
        advice: Advice,
        **unfilled: Any,
    ) -> _Ready:
        """Frames are in metres with z up already."""
        recipe = self._trained.recipe
        prepared = prepare_cloud(
            scene, recipe, axes, refuse_scale=self._check_scale, advice=advice, **unfilled
        )
        cloud, views = prepared.cloud, None
        if recipe.images is not None:
            images = CloudImages(recipe.images, frames)
            cloud, views, _ = images.add_to(scene.name or "points", cloud)
        return _Ready(len(scene), prepared.index, cloud, views)


@dataclass(frozen=True)
class _Ready:
    """What goes through the network."""

    count: int
    """Points that were given."""
    index: NDArray[np.int64]
    """(N,) those of them that have a position."""
    cloud: Scene
    """(N) points with the fields that the model reads."""
    views: ImageSet | None
    """The images, for a model that reads images."""
