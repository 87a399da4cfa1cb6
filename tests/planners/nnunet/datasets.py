"""Small datasets in nnU-Net's raw format: every kind of image, label and file that it accepts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk
import tifffile
from numpy.typing import NDArray
from skimage import io

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]

TURN = np.deg2rad(30.0)
DIRECTION = (np.cos(TURN), -np.sin(TURN), 0.0, np.sin(TURN), np.cos(TURN), 0.0, 0.0, 0.0, 1.0)
ORIGIN = (-13.5, 42.0, 7.25)
"""No file lies straight or at zero: a grid that gets lost on the way shows."""


@dataclass(frozen=True, kw_only=True)
class RawTask:
    """What the cases of a dataset look like."""

    shapes: tuple[Shape, ...] = ((10, 36, 30),)
    """Voxels (z, y, x); cases take them in turn."""
    spacing_mm: Triple = (3.0, 1.0, 1.2)
    """Voxel size (z, y, x)."""
    channels: tuple[str, ...] = ("MRI",)
    """Names; nnU-Net chooses the normalisation by them."""
    labels: Mapping[str, int | list[int]] = field(
        default_factory=lambda: {"background": 0, "organ": 1, "core": 2}
    )
    """As in dataset.json; a list is a region."""
    regions_class_order: tuple[int, ...] = ()
    """Needed with regions."""
    ending: str = ".nii.gz"
    """Of all files."""
    reader: str = ""
    """nnU-Net's reader, where the file ending does not choose it."""
    label_type: type = np.uint8
    """Numbers in the label files."""
    frame: Shape = (0, 0, 0)
    """Voxels of zeros at either end of each axis, which nnU-Net crops away."""
    empty: tuple[int, ...] = ()
    """Cases that show nothing but background."""
    train: int = 5
    """Training cases."""
    test: int = 1
    """Cases to predict."""

    @property
    def ignored(self) -> int | None:
        """The ignore label."""
        value = self.labels.get("ignore")
        assert value is None or isinstance(value, int)
        return value

    @property
    def classes(self) -> list[int]:
        """Labels of the foreground that a prediction may hold, ascending."""
        found = {
            label
            for value in self.labels.values()
            for label in (value if isinstance(value, list) else [value])
        }
        return sorted(found - {0, self.ignored})


def draw(task: RawTask, index: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Draw a case: ellipsoids inside one another, each brighter or darker than the one around it.

    Args:
        task: what cases look like.
        index: number of the case; each differs from the others and is always the same.

    Returns:
        (C, Z, Y, X) image; (Z, Y, X) labels, every class present unless the case is empty.
    """
    rng = np.random.default_rng((7, index))
    shape = task.shapes[index % len(task.shapes)]
    place = np.stack(
        np.meshgrid(*[(np.arange(n) + 0.5) / n - 0.5 for n in shape], indexing="ij")
    )  # (3, Z, Y, X), from -0.5 to 0.5
    # off the middle, so that a mask that comes back turned or mirrored misses them
    middle = (np.array([-0.1, 0.12, -0.13]) + rng.uniform(-0.04, 0.04, 3)) * (np.array(shape) > 3)
    radius = np.sqrt(((place - middle.reshape(3, 1, 1, 1)) ** 2).sum(0)) / 0.33
    labels = np.zeros(shape, np.int64)
    for depth, label in enumerate(task.classes):
        labels[radius < 1 - depth / (len(task.classes) + 0.5)] = label
    labels *= index not in task.empty
    noise = rng.normal(0, 6, (len(task.channels), *shape))
    contrast = np.array([60.0 if c % 2 == 0 else -25.0 for c in range(len(task.channels))])
    image = 110 + contrast.reshape(-1, 1, 1, 1) * labels + noise
    if task.channels == ("CT",):
        image -= 400  # Hounsfield units: most of a body is below zero
    inside = np.zeros(shape, bool)
    inside[tuple(slice(f, n - f) for f, n in zip(task.frame, shape, strict=True))] = True
    image[:, ~inside] = 0
    labels[~inside] = 0
    if task.ignored is not None:
        labels[place[2] > 0.3] = task.ignored  # not annotated on one side
    return image.astype(np.float32), labels


def write_dataset(folder: Path, task: RawTask) -> None:
    """Write ``imagesTr``, ``labelsTr``, ``imagesTs``, ``labelsTs`` and ``dataset.json``.

    Args:
        folder: nnU-Net's ``DatasetXXX_Name`` folder.
        task: what the cases look like.
    """
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    for index in range(task.train + task.test):
        part = "Tr" if index < task.train else "Ts"
        image, labels = draw(task, index)
        name = case_name(index)
        write_images(folder / f"images{part}" / name, image, task)
        _write(folder / f"labels{part}" / f"{name}{task.ending}", labels, task, task.label_type)
    content = {
        "channel_names": {str(k): name for k, name in enumerate(task.channels)},
        "labels": dict(task.labels),
        "numTraining": task.train,
        "file_ending": task.ending,
    }
    if task.regions_class_order:
        content["regions_class_order"] = list(task.regions_class_order)
    if task.reader:
        content["overwrite_image_reader_writer"] = task.reader
    (folder / "dataset.json").write_text(json.dumps(content))


def case_name(index: int) -> str:
    """Name of a case, without channel and file ending."""
    return f"case_{index:02d}"


def write_images(stem: Path, image: NDArray[np.float32], task: RawTask) -> None:
    """Write the channels of a case as nnU-Net wants them: a file each, or one colour picture."""
    if task.ending == ".png" and len(image) == 3:
        colours = image[:, 0].transpose(1, 2, 0).clip(0, 255).astype(np.uint8)
        io.imsave(f"{stem}_0000.png", colours, check_contrast=False)
        return
    for channel, volume in enumerate(image):
        kind = np.uint8 if task.ending in (".png", ".bmp") else np.int16
        _write(Path(f"{stem}_{channel:04d}{task.ending}"), volume, task, kind)
    if task.ending == ".tiff":  # a second file holds the spacing, named without the channel
        _write_spacing(Path(f"{stem}.json"), task)


def _write(path: Path, array: NDArray, task: RawTask, kind: type) -> None:
    limits = np.iinfo(kind) if np.issubdtype(kind, np.integer) else np.finfo(kind)
    array = array.clip(limits.min, limits.max).astype(kind)
    if task.ending in (".png", ".tif", ".bmp"):
        io.imsave(str(path), array[0], check_contrast=False)
    elif task.ending == ".tiff":
        tifffile.imwrite(path, array)
        _write_spacing(path.with_suffix(".json"), task)
    elif task.ending == ".mha":
        image = sitk.GetImageFromArray(array[0])  # of two dimensions in the file itself
        image.SetSpacing(task.spacing_mm[:0:-1])
        image.SetOrigin(ORIGIN[:2])
        image.SetDirection([DIRECTION[k] for k in (0, 1, 3, 4)])
        sitk.WriteImage(image, str(path))
    else:
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(task.spacing_mm[::-1])  # SimpleITK counts x, y, z
        image.SetOrigin(ORIGIN)
        image.SetDirection(DIRECTION)
        sitk.WriteImage(image, str(path))


def _write_spacing(path: Path, task: RawTask) -> None:
    path.write_text(json.dumps({"spacing": task.spacing_mm}))
