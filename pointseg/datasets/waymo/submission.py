"""The file of a submission to Waymo's benchmark of 3D semantic segmentation, without TensorFlow or protobuf.

It is a message ``SemanticSegmentationSubmission`` in the encoding of protocol buffers, frame by frame, since the
parts of a message may be written one after the other. For each frame it has the classes of the roof scanner's
pixels, for both returns; pixels without a return have 0, undefined.

Source: segmentation_submission.proto, segmentation_metrics.proto and dataset.proto of the Waymo Open Dataset.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.scene_arrays import load_array
from pointseg.datasets.submission import Results
from pointseg.datasets.waymo.tables import TOP

SHAPE = (64, 2650)
"""Rows and columns of the roof scanner's range images."""
LIDAR_ALL, CAMERA_LIDAR_ALL = 1, 5
"""Which sensors were used, of the message's SensorType."""


def write_predictions(out: Path, prepared: Path, results: Results, *, use_camera: bool) -> Path:
    """Write ``submission.bin``; returns it.

    Args:
        out: folder of the submission.
        prepared: folder of the split, whose scenes have ``cell.npy``.
        results: name, scene and (N,) classes of each frame.
        use_camera: whether images were used.

    Raises:
        DatasetError: a scene's ``cell.npy`` is missing, damaged, or not of the roof scanner's range images.
        WriteError: the system refuses to write.
    """
    path = out / "submission.bin"
    with new_file(path) as part, open(part, "wb") as stream:
        stream.write(_number(7, CAMERA_LIDAR_ALL if use_camera else LIDAR_ALL))
        stream.write(_number(8, 0) + _number(9, 0))  # frames before and after that were used
        for name, scene, predicted in results:
            cell = load_array(prepared / name, "cell", len(scene), 4)
            frame = _frame(name, _images(prepared / name, cell, np.asarray(predicted)))
            stream.write(_message(10, _message(1, frame)))
    return path


def _images(folder: Path, cell: NDArray[Any], predicted: NDArray[Any]) -> NDArray[np.uint8]:
    """(2, 64, 2650) ids of the pixels for both returns."""
    top = cell[:, 0] == TOP
    which, rows, columns = cell[top, 1:].T
    inside = (which >= 1) & (which <= 2) & (rows >= 0) & (rows < SHAPE[0])
    if not (inside & (columns >= 0) & (columns < SHAPE[1])).all():
        raise DatasetError(
            f"{folder / 'cell.npy'}: must be pixels of two returns of {SHAPE[0]} x {SHAPE[1]}; prepare "
            "the dataset again"
        )
    images = np.zeros((2, *SHAPE), np.uint8)
    images[which - 1, rows, columns] = predicted[top] + 1
    return images


def _frame(name: str, images: NDArray[np.uint8]) -> bytes:
    """SegmentationFrame: a laser with two range images, the segment and the time."""
    segment, _, timestamp = name.partition("/")
    laser = _number(1, TOP)
    for number, image in enumerate(images):
        laser += _message(2 + number, _message(6, zlib.compress(_matrix(image))))
    return _message(1, laser) + _message(2, segment.encode()) + _number(3, int(timestamp))


def _matrix(image: NDArray[np.uint8]) -> bytes:
    """MatrixInt32 of H x W x 2 numbers: the object, which is always 0, and the class."""
    values = np.stack([np.zeros_like(image), image], axis=-1)  # below 128: a byte is a varint
    shape = b"".join(_number(1, side) for side in values.shape)
    return _message(1, values.tobytes()) + _message(2, shape)


def _number(field: int, value: int) -> bytes:
    """A field that holds a whole number."""
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    """A field that holds bytes, text or another message."""
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits per byte, the lowest first; the eighth says that more follow."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
