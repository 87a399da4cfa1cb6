"""SemanticKITTI: 360 degree laser scans of a car in traffic, 19 classes.

The official files are read in place; ``pointseg-prepare --dataset semantickitti`` checks them and writes an
index of the scans.

Source: Behley 2019, arXiv:1904.01416; Geiger 2012, the KITTI odometry benchmark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.datasets.classes import ClassList
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.labels import LabelMap
from pointseg.datasets.named_scenes import require_split
from pointseg.datasets.prepared import IndexedDataset
from pointseg.datasets.scan_files import check_scan, load_raw_labels, load_scan
from pointseg.datasets.submission import Results, checked_prediction
from pointseg.scene import IGNORE, Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

NAME = "semantickitti"
POINT_BYTES, LABEL_BYTES = 16, 4

SPLITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10"),
        "val": ("08",),
        "test": tuple(f"{number:02d}" for number in range(11, 22)),
    }
)
"""The sequences of each split."""
OFFICIAL_COUNTS: Mapping[str, int] = MappingProxyType(
    {"train": 19_130, "val": 4_071, "test": 20_351}
)
"""Scans of each split in the whole dataset."""
UNLABELLED = ("test",)
CAMERA = 2
"""The left colour camera, whose images are in image_2."""
PIXEL_CENTRE = 0.5
"""Centre of the first pixel, which KITTI's calibration puts at 0."""

CLASSES = ClassList(
    names=(
        "car", "bicycle", "motorcycle", "truck", "other-vehicle", "person", "bicyclist",
        "motorcyclist", "road", "parking", "sidewalk", "other-ground", "building", "fence",
        "vegetation", "trunk", "terrain", "pole", "traffic-sign",
    ),
    colors=np.array(
        [
            [100, 150, 245], [100, 230, 245], [30, 60, 150], [80, 30, 180], [100, 80, 250],
            [255, 30, 30], [255, 40, 200], [150, 30, 90], [255, 0, 255], [255, 150, 255],
            [75, 0, 75], [175, 0, 75], [255, 200, 0], [255, 120, 50], [0, 175, 0], [135, 60, 0],
            [150, 240, 80], [255, 240, 150], [255, 0, 0],
        ],
        np.uint8,
    ),
)  # fmt: skip
"""The classes of the benchmark, with its colours."""

RAW_IDS = (10, 11, 15, 18, 20, 30, 31, 32, 40, 44, 48, 49, 50, 51, 70, 71, 72, 80, 81)
"""Ids of the classes in submissions, by training index."""

LABEL_MAP = LabelMap(
    NAME,
    {
        **dict.fromkeys((0, 1, 52, 99), IGNORE),
        **dict.fromkeys((10, 252), 0), 11: 1, 15: 2, **dict.fromkeys((18, 258), 3),
        **dict.fromkeys((13, 16, 20, 256, 257, 259), 4), **dict.fromkeys((30, 254), 5),
        **dict.fromkeys((31, 253), 6), **dict.fromkeys((32, 255), 7),
        **dict.fromkeys((40, 60), 8), 44: 9, 48: 10, 49: 11, 50: 12, 51: 13, 70: 14, 71: 15, 72: 16,
        80: 17, 81: 18,
    },
)  # fmt: skip
"""Training index of every id in the label files; moving objects count as their class."""

CLASS_SHARES = (
    0.0426, 0.000166, 0.000398, 0.00216, 0.00181, 0.000338, 0.000127, 0.0000375, 0.1988, 0.0147,
    0.1439, 0.0039, 0.1327, 0.0724, 0.2668, 0.00604, 0.0781, 0.00286, 0.000616,
)  # fmt: skip
"""Share of each class among all training points (3.15 % are ignored); its usual loss weight is -ln of it."""


@dataclass(frozen=True)
class Calibration:
    """Calibration of the laser scanner and the cameras of a sequence."""

    projections: Mapping[str, NDArray[np.float64]]
    """P0 to P3: (3, 4) from rectified camera 0 to the pixels of each camera."""
    velodyne_to_camera0: NDArray[np.float64]
    """(4, 4) pose of the scanner in camera 0."""

    def camera(self, number: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(3, 3) intrinsics of a camera as the file has them, and its (4, 4) pose, scanner to camera.

        The offset t of the camera is solved from its projection P = K [I | t].
        """
        projection = self.projections[f"P{number}"]
        intrinsic = projection[:, :3]
        shift = np.eye(4)
        shift[:3, 3] = np.linalg.solve(intrinsic, projection[:, 3])
        return intrinsic, shift @ self.velodyne_to_camera0


class SemanticKITTI(IndexedDataset):
    """The scans, named ``sequence/number``."""

    classes = CLASSES
    fields = frozenset({"strength"})
    class_shares = CLASS_SHARES
    shares_of = ("train",)

    def __init__(self, root: Path) -> None:
        """Open the dataset.

        Args:
            root: the folder that ``pointseg-prepare`` was given as ``--out``.

        Raises:
            DatasetError: ``root`` is not prepared, or the official files are no longer there.
        """
        super().__init__(root, NAME, official="sequences")
        self.images = self.source if self.index.images is None else root / self.index.images

    def load(self, split: str, scene: str) -> Scene:
        """Load one scan, with the scanner at the origin; test scans have no labels.

        ``instance`` is the number of the object in the label file, the same in the whole sequence.

        Raises:
            DatasetError: there is no such scan; its files are missing, cut off, or do not fit.
        """
        points, labels = self._scan_files(split, scene)
        cloud = load_scan(points, scene)
        if labels is None:
            return cloud
        segment, instance = read_labels(labels, len(cloud))
        return cloud.with_fields(segment=segment, instance=instance)

    def look_at(self, split: str, scene: str) -> None:
        """Check the files of a scan by their sizes."""
        points, labels = self._scan_files(split, scene)
        check_scan(points, labels, point_bytes=POINT_BYTES, label_bytes=LABEL_BYTES)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The image of the left colour camera, which looks ahead; () if its sequence has none.

        Raises:
            UserError: there is no such scan; its image or the calibration is missing or damaged.
        """
        from pointseg.images.readers.frame import Frame, make_camera
        from pointseg.images.readers.image_files import ImageFile, image_size

        sequence, number = self._parse(split, scene)
        folder = self.images / "sequences" / sequence / f"image_{CAMERA}"
        if not folder.is_dir():
            return ()
        image = folder / f"{number}.png"
        intrinsics, pose = self.calibration(sequence).camera(CAMERA)
        size = image_size(image)
        shifted = intrinsics.copy()
        shifted[:2, 2] += PIXEL_CENTRE
        camera = make_camera(
            f"{image} with {self._calib_file(sequence)}",
            intrinsics=shifted,
            size=size,
            world_to_camera=pose,
        )
        if not (0 < intrinsics[0, 2] < size[1] and 0 < intrinsics[1, 2] < size[0]):
            raise DatasetError(
                f"{image}: is {size[1]} x {size[0]} pixels (width x height), but the principal point in "
                f"calib.txt is {intrinsics[0, 2]:.0f}, {intrinsics[1, 2]:.0f}; use the images as downloaded"
            )
        return (Frame(name=f"image_{CAMERA}", camera=camera, image=ImageFile(image)),)

    def calibration(self, sequence: str) -> Calibration:
        """The calibration of a sequence.

        Raises:
            DatasetError: ``calib.txt`` is missing or malformed.
        """
        return read_calibration(self._calib_file(sequence))

    def _calib_file(self, sequence: str) -> Path:
        return self.source / "sequences" / sequence / "calib.txt"

    def _scan_files(self, split: str, scene: str) -> tuple[Path, Path | None]:
        """The files of points and labels of a scan."""
        sequence, number = self._parse(split, scene)
        folder = self.source / "sequences" / sequence
        labels = None if split in UNLABELLED else folder / "labels" / f"{number}.label"
        return folder / "velodyne" / f"{number}.bin", labels

    def _parse(self, split: str, scene: str) -> tuple[str, str]:
        """Sequence and number of a scan of a split."""
        self.require(split, scene)
        sequence, number = scene.split("/")
        return sequence, number

    def write_submission(
        self, out: Path, results: Results, *, split: str, use_camera: bool = False
    ) -> list[Path]:
        """Write ``sequences/XX/predictions/NNNNNN.label`` with a raw id for each point, to be zipped.

        Raises:
            DatasetError: a point without a class.
        """
        require_split(NAME, split, tuple(SPLITS))
        raw_ids = np.array(RAW_IDS, "<u4")
        written = []
        for name, scene, predicted in results:
            classes = checked_prediction(NAME, name, len(scene), predicted, len(raw_ids))
            sequence, number = name.split("/")
            path = out / "sequences" / sequence / "predictions" / f"{number}.label"
            with new_file(path) as part:
                part.write_bytes(raw_ids[classes].tobytes())
            written.append(path)
        return written


def read_labels(path: Path, count: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Classes and objects of a scan's points.

    Args:
        path: a ``.label`` file: uint32 per point, the class in the low, the object in the high 16 bits.
        count: number of points of the scan.

    Returns:
        (count,) training indices, and (count,) numbers of objects; ``IGNORE`` where there is none.

    Raises:
        DatasetError: the file is missing, of another length, or has unknown ids.
    """
    raw = load_raw_labels(path, count, "<u4")
    segment = LABEL_MAP(raw & 0xFFFF, str(path))
    instance = (raw >> 16).astype(np.int32)
    return segment, np.where(instance > 0, instance, np.int32(IGNORE))


def read_calibration(path: Path) -> Calibration:
    """Read ``calib.txt``: lines ``P0:`` to ``P3:`` and ``Tr:`` with 12 numbers each, rows of 3 x 4 matrices.

    Raises:
        DatasetError: the file or a matrix in it is missing or malformed.
    """
    found: dict[str, NDArray[np.float64]] = {}
    for line in _lines(path):
        key, colon, rest = line.partition(":")
        if colon and key.strip() in ("P0", "P1", "P2", "P3", "Tr"):
            found[key.strip()] = _matrix(path, rest)
    missing = [key for key in ("P0", "P1", "P2", "P3", "Tr") if key not in found]
    if missing:
        raise DatasetError(
            f"{path}: lacks {', '.join(missing)}; use that of the odometry benchmark"
        )
    pose = np.vstack([found.pop("Tr"), [0, 0, 0, 1]])
    return Calibration(found, pose)


def _lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="ascii")
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing") from error
    except UnicodeDecodeError as error:
        raise DatasetError(f"{path}: is not text") from error
    return [line for line in text.splitlines() if line.strip()]


def _matrix(path: Path, text: str) -> NDArray[np.float64]:
    try:
        values: NDArray[Any] = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise DatasetError(f"{path}: holds what is no number: {error}") from error
    if values.size != 12 or not np.isfinite(values).all():
        raise DatasetError(f"{path}: each line must have 12 finite numbers, got {values.size}")
    return values.reshape(3, 4)
