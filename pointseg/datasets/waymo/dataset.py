"""Waymo Open Dataset, version 2: labelled frames of five laser scanners on a car, 22 classes.

Reads what ``pointseg-prepare --dataset waymo`` wrote. Scenes are frames, ``SEGMENT/TIMESTAMP``, with positions in the
vehicle frame: x forward, y left, z up. Only points of the scanner on the roof have labels.

Source: Sun 2020, arXiv:1912.04838, and the dataset's released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.named_scenes import NamedScenes, require_split
from pointseg.datasets.prepared import IndexedDataset
from pointseg.datasets.scene_arrays import check_arrays, load_array
from pointseg.datasets.submission import Results, checked_prediction
from pointseg.datasets.waymo.classes import CLASSES, NAME
from pointseg.scene import IGNORE, Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

FOLDERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"train": ("training",), "val": ("validation",), "test": ("testing", "testing_location")}
)
"""Folders of the official files, by split."""
UNLABELLED = ("test",)
TIMESTAMPS = "timestamps"
"""Array in the folder of a segment that lists its frames."""
ARRAYS = ("coord", "strength", "cell")
LABELS = ("segment", "instance")


class Waymo(IndexedDataset):
    """The prepared frames."""

    classes = CLASSES
    fields = frozenset({"strength"})

    def __init__(self, root: Path) -> None:
        """Open the dataset.

        Args:
            root: the folder that ``pointseg-prepare`` was given as ``--out``.

        Raises:
            DatasetError: ``root`` is not prepared, or the list of a segment's frames is damaged.
        """
        super().__init__(root, NAME)
        frames = {
            split: [
                f"{segment}/{timestamp}"
                for segment in segments
                for timestamp in load_array(root / split / segment, TIMESTAMPS, None, None).tolist()
            ]
            for split, segments in self.index.splits.items()
        }
        NamedScenes.__init__(self, NAME, frames)

    def load(self, split: str, scene: str) -> Scene:
        """Load one frame in the vehicle's coordinates; test frames have no labels.

        Raises:
            DatasetError: there is no such frame, or its files are missing, damaged or do not fit.
        """
        self.require(split, scene)
        folder = self.root / split / scene
        coord = load_array(folder, "coord", None, 3).astype(np.float32, copy=False)
        strength = load_array(folder, "strength", len(coord), 1).astype(np.float32, copy=False)
        cloud = Scene(coord=coord, fields={"strength": strength}, name=scene)
        if split in UNLABELLED:
            return cloud
        segment, instance = (
            load_array(folder, name, len(coord), None).astype(np.int32) for name in LABELS
        )
        wrong = (segment < IGNORE) | (segment >= len(CLASSES))
        if wrong.any():
            raise DatasetError(
                f"{folder / 'segment.npy'}: labels must be {IGNORE} to {len(CLASSES) - 1}, {int(wrong.sum())} "
                "points have others; prepare the dataset again"
            )
        return cloud.with_fields(segment=segment, instance=instance)

    def look_at(self, split: str, scene: str) -> None:
        """Check the arrays of a frame by their headers and sizes."""
        self.require(split, scene)
        labels = () if split in UNLABELLED else LABELS
        columns: dict[str, int | None] = {"coord": 3, "strength": 1, **dict.fromkeys(labels)}
        check_arrays(self.root / split / scene, columns)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The images of the cameras front, front left, front right, side left and side right.

        Raises:
            UserError: there is no such frame; the dataset was prepared without images; their description is
                missing or damaged.
        """
        from pointseg.datasets.waymo.images import read_frames

        self.require(split, scene)
        if self.index.images is None:
            raise DatasetError(
                f"dataset '{NAME}': {self.root} was prepared without images; prepare it again with --images"
            )
        segment, _, timestamp = scene.partition("/")
        return read_frames(self.root / split / segment, timestamp)

    def write_submission(
        self, out: Path, results: Results, *, split: str, use_camera: bool = False
    ) -> list[Path]:
        """Write ``submission.bin``, to which the names of account and method must be added before it is uploaded.

        Raises:
            DatasetError: a point without a class.
        """
        from pointseg.datasets.waymo.submission import write_predictions

        require_split(NAME, split, self.splits())

        def labelled() -> Results:
            for name, scene, predicted in results:
                yield (
                    name,
                    scene,
                    checked_prediction(NAME, name, len(scene), predicted, len(CLASSES)),
                )

        return [write_predictions(out, self.root / split, labelled(), use_camera=use_camera)]
