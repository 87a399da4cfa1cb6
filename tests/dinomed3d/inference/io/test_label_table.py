"""Names of values travel with masks, as independent readers find them."""

import xml.etree.ElementTree as ElementTree

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from dinomed3d.inference.io.image import check_mask, read_case, read_grid, write_mask
from dinomed3d.inference.io.label_image import label_image
from dinomed3d.inference.io.label_table import nifti_extensions, slicer_colours, value_names
from tests.dinomed3d.inference.image_files import case, numbers, save, scan

LABELS = {"liver & spleen": [1], "Ü <b>]]>\n": [2], "x" * 70: [300]}


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_masks_name_their_values(tmp_path, ending, kind):
    grid = read_grid(scan(save(tmp_path / f"a{ending}", numbers(3, 4, 5), kind=kind)))
    mask = np.zeros((5, 4, 3), np.uint16)
    mask[0, 0, 0], mask[4, 3, 2], mask[1, 2, 1] = 1, 300, 2
    path = tmp_path / f"m{ending}"
    write_mask(mask, grid, path, labels=LABELS)
    assert check_mask(path, grid) is None
    np.testing.assert_array_equal(read_case(case(path), ["x"]).channels[0], mask)
    if kind is nib.Nifti1Image:  # ITK reads no NIfTI-2
        np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), mask)
    image = nib.load(path)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj).T, mask)
    total_segmentator, caret = image.header.extensions  # which read the first, and code 30
    assert (total_segmentator.get_code(), caret.get_code()) == (0, 30)
    assert total_segmentator.get_content() == caret.content
    root = ElementTree.fromstring(caret.content)
    assert root.findtext("VolumeInformation/VolumeType") == "Label"
    table = root.findall("VolumeInformation/LabelTable/Label")
    found = {int(label.get("Key")): label.text for label in table}
    assert found == {1: "liver & spleen", 2: "Ü <b>]]> ", 300: "x" * 70}
    colours = [
        [round(255 * float(label.get(c))) for c in ("Red", "Green", "Blue")] for label in table
    ]
    assert colours == [[230, 159, 0], [86, 180, 233], [213, 94, 0]]  # 300 = 42 * 7 + 6
    again = tmp_path / f"again{ending}"
    write_mask(mask, grid, again, labels=dict(LABELS))
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("letters", range(16))
def test_extensions_are_whole_blocks(letters):
    two = nifti_extensions({"a" * (1 + letters): [1]})
    assert len(two) % 32 == 0 and int.from_bytes(two[:4], "little") == len(two) // 2


def test_nrrd_masks_describe_segments(tmp_path):
    grid = read_grid(scan(_written(tmp_path / "a.nrrd")))
    mask = np.ones(grid.shape_zyx, np.uint8)
    path = tmp_path / "m.nrrd"
    write_mask(mask, grid, path, labels={"liver left": [1], "b": [2]})
    assert check_mask(path, grid) is None
    image = sitk.ReadImage(str(path))
    assert image.GetMetaData("Segment0_Name") == "liver left"
    assert image.GetMetaData("Segment1_LabelValue") == "2"
    assert image.GetMetaData("Segment1_Extent") == "0 2 0 3 0 4"
    assert "segments" in label_image(path, ".nrrd")


def _written(path):
    sitk.WriteImage(sitk.GetImageFromArray(numbers(5, 4, 3)), str(path))
    return path


def test_values_within_regions():
    regions = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": [3]}
    assert value_names(regions) == {1: "part of whole", 2: "part of whole, core", 3: "enhancing"}


def test_a_colour_table_has_five_columns_and_a_name():
    rows = slicer_colours({"left  liver": 8, "#\t": [9]}).splitlines()
    assert rows[1:] == [
        *("# 3 values", "0 background 0 0 0 0", "8 left_liver 230 159 0 255", "9 # 86 180 233 255"),
    ]
