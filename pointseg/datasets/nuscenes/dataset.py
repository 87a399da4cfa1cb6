"""nuScenes-lidarseg: keyframes of a 32-beam scanner on a car, 16 classes.

The official files are read in place, without the devkit; ``pointseg-prepare --dataset nuscenes`` reads the
tables once and writes an index of the keyframes.

Source: Caesar 2020, arXiv:1903.11027; Fong 2021, arXiv:2109.03805.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.datasets.classes import ClassList
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.labels import LabelMap
from pointseg.datasets.prepared import IndexedDataset
from pointseg.datasets.scan_files import check_scan, load_raw_labels, load_scan
from pointseg.datasets.submission import Results, checked_prediction
from pointseg.scene import IGNORE, Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

NAME = "nuscenes"
POINT_BYTES, LABEL_BYTES = 20, 1
VERSIONS = ("v1.0-trainval", "v1.0-mini", "v1.0-test")

CLASSES = ClassList(
    names=(
        "barrier", "bicycle", "bus", "car", "construction_vehicle", "motorcycle", "pedestrian",
        "traffic_cone", "trailer", "truck", "driveable_surface", "other_flat", "sidewalk", "terrain",
        "manmade", "vegetation",
    ),
    colors=np.array(
        [
            [112, 128, 144], [220, 20, 60], [255, 127, 80], [255, 158, 0], [233, 150, 70],
            [255, 61, 99], [0, 0, 230], [47, 79, 79], [255, 140, 0], [255, 99, 71], [0, 207, 191],
            [175, 0, 75], [75, 0, 75], [112, 180, 60], [222, 184, 135], [0, 175, 0],
        ],
        np.uint8,
    ),
)  # fmt: skip
"""The classes of the challenge, with its colours."""

RAW_NAMES = (
    "noise", "animal", "human.pedestrian.adult", "human.pedestrian.child",
    "human.pedestrian.construction_worker", "human.pedestrian.personal_mobility",
    "human.pedestrian.police_officer", "human.pedestrian.stroller", "human.pedestrian.wheelchair",
    "movable_object.barrier", "movable_object.debris", "movable_object.pushable_pullable",
    "movable_object.trafficcone", "static_object.bicycle_rack", "vehicle.bicycle",
    "vehicle.bus.bendy", "vehicle.bus.rigid", "vehicle.car", "vehicle.construction",
    "vehicle.emergency.ambulance", "vehicle.emergency.police", "vehicle.motorcycle",
    "vehicle.trailer", "vehicle.truck", "flat.driveable_surface", "flat.other", "flat.sidewalk",
    "flat.terrain", "static.manmade", "static.other", "static.vegetation", "vehicle.ego",
)  # fmt: skip
"""Categories of the ids in label files."""

_USED = {
    9: 0, 14: 1, 15: 2, 16: 2, 17: 3, 18: 4, 21: 5, 2: 6, 3: 6, 4: 6, 6: 6, 12: 7, 22: 8, 23: 9,
    24: 10, 25: 11, 26: 12, 27: 13, 28: 14, 30: 15,
}  # fmt: skip
LABEL_MAP = LabelMap(NAME, {raw: _USED.get(raw, IGNORE) for raw in range(len(RAW_NAMES))})
"""Training index of every id in the label files."""


def _numbers(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.replace("\n", "").split(","):
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


VAL_SCENES = _numbers(
    "3,12-18,35-36,38-39,92-110,221,268-278,329-332,344-346,519-524,552-565,625-627,629-630,632-638,"
    "770-771,775,777-778,780-784,794-800,802,904-917,919-931,962-963,966-969,971-972,1059-1073"
)
"""Numbers of the validation scenes of v1.0-trainval; its others are for training."""
MINI_SPLITS: Mapping[str, frozenset[int]] = MappingProxyType(
    {"train": _numbers("61,553,655,757,796,1077,1094,1100"), "val": _numbers("103,916")}
)
"""Numbers of the scenes of v1.0-mini."""
OFFICIAL_COUNTS: Mapping[str, int] = MappingProxyType(
    {"train": 28_130, "val": 6_019, "test": 6_008}
)
"""Keyframes of each split in the whole dataset."""


def split_of(version: str, scene: str) -> str | None:
    """train, val or test, by the official lists; None for a scene that is not in them."""
    if version == "v1.0-test":
        return "test"
    match = re.fullmatch(r"scene-(\d{4})", scene)
    if match is None:
        return None
    number = int(match[1])
    if version == "v1.0-mini":
        return next((split for split, members in MINI_SPLITS.items() if number in members), None)
    return "val" if number in VAL_SCENES else "train"


class NuScenes(IndexedDataset):
    """The keyframes, named by the tokens of their lidar sample_data."""

    classes = CLASSES
    fields = frozenset({"strength"})

    def __init__(self, root: Path) -> None:
        """Open the dataset.

        Args:
            root: the folder that ``pointseg-prepare`` was given as ``--out``.

        Raises:
            DatasetError: ``root`` is not prepared, or the official files are no longer there.
        """
        super().__init__(root, NAME, official="samples")

    def load(self, split: str, scene: str) -> Scene:
        """Load one sweep, with the scanner at the origin; test keyframes have no labels.

        Raises:
            DatasetError: there is no such keyframe; its files are missing, cut off, or do not fit.
        """
        points, labels = self._scan_files(split, scene)
        cloud = load_scan(points, scene)
        return (
            cloud if labels is None else cloud.with_fields(segment=read_labels(labels, len(cloud)))
        )

    def look_at(self, split: str, scene: str) -> None:
        """Check the files of a sweep by their sizes."""
        points, labels = self._scan_files(split, scene)
        check_scan(points, labels, point_bytes=POINT_BYTES, label_bytes=LABEL_BYTES)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The images of the cameras front, front right, front left, back, back left and back right.

        Raises:
            UserError: there is no such keyframe; the dataset was prepared without images; the description
                of its cameras is damaged.
        """
        from pointseg.datasets.nuscenes.cameras import read_frames

        files = self._files(split, scene)
        if self.index.images is None:
            raise DatasetError(
                f"dataset '{NAME}': {self.root} was prepared without images; prepare it again with --images"
            )
        return read_frames(self.root, files["scene"], scene, self.root / self.index.images)

    def _scan_files(self, split: str, scene: str) -> tuple[Path, Path | None]:
        """The files of points and labels of a sweep."""
        files = self._files(split, scene)
        labels = files["labels"]
        return self.source / files["points"], None if labels is None else self.source / labels

    def _files(self, split: str, scene: str) -> Mapping[str, Any]:
        self.require(split, scene)
        if scene not in self.index.files:
            raise DatasetError(f"dataset '{NAME}': its index does not name the files of '{scene}'")
        files: Mapping[str, Any] = self.index.files[scene]
        return files

    def write_submission(
        self,
        out: Path,
        results: Results,
        *,
        split: str,
        use_camera: bool = False,
        use_external: bool = False,
    ) -> list[Path]:
        """Write ``lidarseg/<split>/<token>_lidarseg.bin`` and ``<split>/submission.json``, to be zipped.

        Args:
            out: folder of the submission.
            results: predictions for the keyframes.
            split: test or val.
            use_camera: whether images were used in prediction, as the rules require to be stated.
            use_external: whether other data were used, such as those of pretrained image encoders.

        Raises:
            DatasetError: a point without a class.
        """
        written = []
        for name, scene, predicted in results:
            classes = checked_prediction(NAME, name, len(scene), predicted, len(CLASSES))
            path = out / "lidarseg" / split / f"{name}_lidarseg.bin"
            with new_file(path) as part:
                part.write_bytes((classes + 1).astype(np.uint8).tobytes())
            written.append(path)
        meta = {
            "use_camera": use_camera,
            "use_lidar": True,
            "use_radar": False,
            "use_map": False,
            "use_external": use_external,
        }
        path = out / split / "submission.json"
        with new_file(path) as part:
            part.write_text(json.dumps({"meta": meta}, indent=1) + "\n")
        return [*written, path]


def read_labels(path: Path, count: int) -> NDArray[np.int32]:
    """(count,) training indices of a sweep's points, from a ``_lidarseg.bin`` of one byte each.

    Raises:
        DatasetError: the file is missing, of another length, or has unknown ids.
    """
    return LABEL_MAP(load_raw_labels(path, count, np.uint8), str(path))
