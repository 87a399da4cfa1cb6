"""The phantom: its anatomy, what its brightness does not tell, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from dinomed3d.cli.demo.phantom import LABELS, PhantomSpec, phantom_case, write_phantom
from dinomed3d.runtime.errors import UserError


def test_phantom_depends_on_seed_and_case_only() -> None:
    image, labels = phantom_case(PhantomSpec(seed=3), 2)
    again, same = phantom_case(PhantomSpec(seed=3, training_cases=7), 2)
    assert np.array_equal(image, again)
    assert np.array_equal(labels, same)
    assert not np.array_equal(image, phantom_case(PhantomSpec(seed=4), 2)[0])
    assert not np.array_equal(image, phantom_case(PhantomSpec(seed=3), 3)[0])


@pytest.mark.parametrize("index", range(16))
def test_phantom_has_every_structure_in_every_case(index: int) -> None:
    image, labels = phantom_case(PhantomSpec(), index)
    assert image.shape == labels.shape == (16, 40, 40)
    voxels = np.bincount(labels.ravel(), minlength=4)
    assert len(voxels) == len(LABELS)
    assert voxels[1:].min() > 140
    assert 0.8 < voxels[0] / labels.size < 0.97
    assert (labels == LABELS["vessel"]).any((1, 2)).all(), "the tube runs through every slice"


def best_band(image: np.ndarray, mask: np.ndarray) -> float:
    """Dice of the range of brightness that tells a label best."""
    edges = np.arange(0, 240, 4)
    inside, everywhere = (
        np.concatenate([[0], np.histogram(values, edges)[0].cumsum()])
        for values in (image[mask], image)
    )
    hits = inside[None] - inside[:, None]  # (from, to)
    size = everywhere[None] - everywhere[:, None]
    return float((2 * hits / np.maximum(1, size + mask.sum())).max())


@pytest.mark.parametrize("index", [0, 5, 10, 15])
def test_labels_cannot_be_read_off_the_brightness(index: int) -> None:
    image, labels = phantom_case(PhantomSpec(), index)
    assert best_band(image, labels == LABELS["organ"]) < 0.75
    assert best_band(image, labels == LABELS["wall"]) < 0.75


@pytest.mark.parametrize("index", range(16))
def test_what_has_no_label_is_darker_than_the_vessel(index: int) -> None:
    """What is as bright is learned too late for a demonstration: a ball was called vessel in every case."""
    image, labels = phantom_case(PhantomSpec(), index)
    vessel = np.percentile(image[labels == LABELS["vessel"]], 10)
    assert (image[labels == 0] > vessel).sum() < 20


def test_wall_is_thin() -> None:
    _, labels = phantom_case(PhantomSpec(), 0)
    wall = labels[8] == LABELS["wall"]
    row = wall[int(np.flatnonzero(wall.any(1)).mean())].astype(int)  # through the middle
    starts, ends = np.flatnonzero(np.diff(row) == 1), np.flatnonzero(np.diff(row) == -1)
    assert len(starts) == 2, "left and right of the cavity"
    assert (ends - starts).max() <= 4  # voxels of 1.5 mm


def test_phantom_is_written_as_nnunet_expects(tmp_path: Path) -> None:
    spec = PhantomSpec(training_cases=5, test_cases=1, shape_zyx=(8, 16, 20))
    folder = tmp_path / "Dataset900_Phantom"
    assert write_phantom(folder, spec) == ["phantom_005"]
    assert len(list((folder / "imagesTr").iterdir())) == 5
    image = sitk.ReadImage(str(folder / "imagesTs" / "phantom_005_0000.nii.gz"))
    labels = sitk.ReadImage(str(folder / "labelsTs" / "phantom_005.nii.gz"))
    assert image.GetSpacing() == labels.GetSpacing() == (1.5, 1.5, 3.0)
    assert image.GetSize() == labels.GetSize() == (20, 16, 8)
    expected = phantom_case(spec, 5)
    assert np.array_equal(sitk.GetArrayFromImage(image), expected[0])
    assert np.array_equal(sitk.GetArrayFromImage(labels), expected[1])
    description = json.loads((folder / "dataset.json").read_text())
    assert description["numTraining"] == 5
    assert description["labels"] == LABELS
    with pytest.raises(UserError, match="exists already"):
        write_phantom(folder, spec)
