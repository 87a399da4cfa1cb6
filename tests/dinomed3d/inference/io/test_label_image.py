"""Label images are known by their header and voxels; scans of all kinds are not taken for them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.discovery.scans import image_ending
from dinomed3d.inference.io import label_image as module
from dinomed3d.inference.io.label_image import label_image
from dinomed3d.runtime.errors import UserError

SHAPE = (16, 24, 32)


def areas(labels: int = 3) -> np.ndarray:
    """Background, and slabs of labels 1 ... along y, as thick as their number allows."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[2:14, 2:22, 4:28] = 1 + np.arange(20)[:, None] * labels // 20
    return mask


def noise(low: int, high: int, dtype: str = "int16") -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, SHAPE).astype(dtype)


def landmarks() -> np.ndarray:
    mask = np.zeros(SHAPE, np.float64)
    mask[4, 5, 6], mask[8, 9, 10] = 3, 4
    return mask


def upsampled() -> np.ndarray:
    """A scan of 200 grey values whose rows were doubled by the nearest neighbour."""
    return np.repeat(noise(1, 200, "uint8")[..., :16], 2, axis=-1)


VOXELS = {
    "labels": (areas(), True),
    "many labels": (areas(17), True),
    "labels as float": (areas().astype(np.float32), True),
    "landmarks": (landmarks(), True),
    "CT": (noise(-1000, 1000), False),
    "grey values of 8 bits": (noise(0, 256, "uint8"), False),
    "rows doubled": (upsampled(), False),
    "four grey values without areas": (noise(0, 4, "uint8"), False),
    "fractions": (areas().astype(np.float32) * 0.5, False),
    "negative areas": (areas().astype(np.int16) - 1, False),
    "nothing": (np.zeros(SHAPE, np.int16), False),
    "an absent organ": (np.zeros(SHAPE, np.uint8), True),
    "too few voxels to say": (areas()[:2, :8, :16], False),
}


def test_zeros_without_end_are_not_read_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = np.zeros((64, 128, 128), np.uint8)  # 1 MiB, read in four blocks
    mask[60:, 20:60, 20:60] = 1
    nib.save(nib.Nifti1Image(mask.T, np.eye(4)), tmp_path / "late.nii.gz")
    assert label_image(tmp_path / "late.nii.gz", ".nii.gz")
    monkeypatch.setattr(module, "_MOST_BYTES", 2**18)
    assert not label_image(tmp_path / "late.nii.gz", ".nii.gz")


def test_numbers_as_text_are_left_to_the_reader_of_scans(tmp_path: Path) -> None:
    header = "ObjectType = Image\nNDims = 3\nBinaryData = False\nDimSize = 16 16 32\n"
    content = header + "ElementSpacing = 1 1 1\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    (tmp_path / "text.mha").write_text(content + "11111111 " * 1000)
    assert not label_image(tmp_path / "text.mha", ".mha")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize("name", VOXELS)
def test_voxels_tell_label_images_from_scans(tmp_path: Path, name: str, ending: str) -> None:
    voxels, is_label = VOXELS[name]
    path = tmp_path / f"a{ending}"
    if ending.startswith(".nii"):
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    else:
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), useCompression=name < "g")
    assert bool(label_image(path, ending)) == is_label


def test_headers_say_that_they_are_label_images(tmp_path: Path) -> None:
    image = nib.Nifti1Image(noise(-9, 9), np.eye(4))
    image.header.set_intent("label")
    nib.save(image, tmp_path / "a.nii.gz")
    assert "intent" in label_image(tmp_path / "a.nii.gz", ".nii.gz")
    nib.save(nib.Nifti1Image(areas(), np.eye(4)), tmp_path / "b.nii")
    scaled = nib.load(tmp_path / "b.nii")
    scaled.header.set_slope_inter(0.5, 0)
    nib.save(scaled, tmp_path / "c.nii")
    assert not label_image(tmp_path / "c.nii", ".nii"), "scaled values are no labels"
    segments = sitk.GetImageFromArray(noise(0, 200))
    segments.SetMetaData("Segment0_ID", "Segment_1")
    sitk.WriteImage(segments, str(tmp_path / "d.seg.nrrd"))
    assert "segments" in label_image(tmp_path / "d.seg.nrrd", ".nrrd")
    (tmp_path / "e.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:40])
    assert label_image(tmp_path / "e.nii.gz", ".nii.gz") == "", "the reader says what is wrong"


def test_label_images_next_to_scans_are_left_out_by_name(tmp_path: Path) -> None:
    def write(name: str, voxels: np.ndarray) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / name)

    write("s1/ct.nii.gz", noise(-1000, 1000))
    write("s1/liver.nii.gz", areas())
    write("s1/prior_0000.nii.gz", areas())  # declared as a channel
    write("s2/ct.nii.gz", noise(-1000, 1000))
    found = find_cases(tmp_path, channels=["CT"])
    assert found.ids == ["s1/ct", "s1/prior", "s2/ct"]
    assert list(found.left_out) == ["s1/liver.nii.gz"]
    everything = find_cases(tmp_path, channels=["CT"], patterns={"CT": "*"})
    assert "s1/liver" in everything.ids and not everything.left_out
    assert find_cases(tmp_path / "s1/liver.nii.gz", channels=["CT"]).ids == ["liver"]
    assert find_cases(tmp_path, channels=["CT"], exclude=["s2", "S1/CT*"]).ids == ["s1/prior"]
    (tmp_path / "s1/prior_0000.nii.gz").unlink()
    with pytest.raises(UserError, match="1 label image alone"):
        find_cases(tmp_path, channels=["CT"], exclude=["ct.nii.gz"])


def test_real_scans_and_masks(shared: Path) -> None:
    folder = shared / "data/medical"
    masks = [
        *("sct/mt/mt1_seg.nii.gz", "sct/t2/t2_seg-manual_labeled.nii.gz"),
        *("totalseg_samples/example_seg.nii.gz", "totalseg_samples/spine/totalseg.nii.gz"),
        *("pyradiomics/breast1_label.nrrd", "sct/t2s/t2s_gmseg_manual.nii.gz"),
    ]
    scans = ["sct/mt/mt1.nii.gz", "sct/t2s/t2s.nii.gz", "pyradiomics/breast1_image.nrrd"]
    for name in [*masks, *scans]:
        ending = image_ending(name)
        assert ending is not None
        assert bool(label_image(folder / name, ending)) == (name in masks), name
