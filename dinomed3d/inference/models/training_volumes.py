"""Volumes of each label in the training set, with which those of predictions are compared."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError


def training_volumes(
    folder: Path, labels: Mapping[str, int | list[int]], *, ending: str
) -> dict[str, list[float]]:
    """Smallest and largest volume of each label over a folder of label images.

    Args:
        folder: such as labelsTr of the data set.
        labels: name -> value, or values of a region.
        ending: of the images.

    Returns:
        Name -> [smallest, largest] in ml; 0 for an image without the label; no background, no "ignore".

    Raises:
        UserError: no images, or images that are not labels of this model.
    """
    files = sorted(f for f in folder.glob(f"*{ending}") if not f.name.startswith("."))
    if not files:
        raise UserError(
            f"--training-labels {folder}: contains no {ending} files; give the folder of the label images of the "
            "training set (labelsTr)"
        )
    values = {n: np.atleast_1d(v) for n, v in labels.items() if n not in ("background", "ignore")}
    largest = max(int(np.max(v)) for v in labels.values())
    found: dict[str, list[float]] = {name: [] for name in values}
    for file in files:
        array, voxel_ml = _read(file)
        counts = _count(array, largest, file)
        for name, value in values.items():
            found[name].append(float(counts[value].sum() * voxel_ml))
    return {n: [round(min(v), 6), round(max(v), 6)] for n, v in found.items()}


def _count(array: NDArray[Any], largest: int, file: Path) -> NDArray[np.int64]:
    """Number of voxels of each label from 0."""
    whole = array if array.dtype.kind in "iu" else np.rint(array)
    if (whole is not array and not np.array_equal(whole, array)) or not array.size:
        raise UserError(
            f"--training-labels: {file} contains values that are not whole numbers; is it an image?"
        )
    if whole.min() < 0 or whole.max() > largest:
        raise UserError(
            f"--training-labels: {file} contains values from {whole.min():g} to {whole.max():g}, but the labels of the "
            f"model end at {largest}; is it of another data set, or an image?"
        )
    return np.bincount(whole.ravel().astype(np.intp), minlength=largest + 1)


def _read(file: Path) -> tuple[NDArray[Any], float]:
    """Voxels in any order, and the volume of a voxel in ml."""
    try:
        if file.name.endswith((".nii", ".nii.gz")):
            import nibabel

            image: Any = nibabel.load(file)
            unit_mm = {"meter": 1000.0, "micron": 0.001}.get(image.header.get_xyzt_units()[0], 1.0)
            spacing_mm = unit_mm * np.abs(np.asarray(image.header.get_zooms()[:3], float))
            return np.asanyarray(image.dataobj), float(np.prod(spacing_mm)) / 1000
        import SimpleITK

        picture = SimpleITK.ReadImage(str(file))
        return SimpleITK.GetArrayFromImage(picture), float(np.prod(picture.GetSpacing())) / 1000
    except Exception as error:  # readers raise nearly anything on files that are not images
        first = (str(error).strip() or type(error).__name__).splitlines()[-1]
        raise UserError(f"--training-labels: {file} cannot be read ({first})") from error
