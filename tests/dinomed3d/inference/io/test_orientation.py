"""Reoriented arrays are those of nibabel, of ITK, and of the two readers in nnU-Net that reorient."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

from dinomed3d.inference.io.image import read_case
from dinomed3d.inference.io.orientation import Reorientation
from tests.dinomed3d.inference.image_files import ORIENTATIONS, affine_of, case, numbers, save


def test_one_flip_and_one_swap_by_hand(tmp_path):
    array = np.zeros((4, 3, 2), np.int16)  # x towards posterior, y to the right, z superior
    array[1, 2, 0] = 5
    affine = np.array([[0, 3.0, 0, 0], [-2, 0, 0, 0], [0, 0, 4, 0], [0, 0, 0, 1]])
    volume = read_case(case(save(tmp_path / "a.nii", array, affine)), ["x"])
    assert volume.grid.orientation == "PRS"
    turn = Reorientation.to("RAS", volume.grid)
    turned = turn.apply(volume.channels[0])
    assert turned.shape == (2, 4, 3) and turned[0, 2, 2] == 5
    assert turn.spacing(volume.grid.spacing_mm) == (4, 2, 3)
    assert turn.undo(turned)[0, 2, 1] == 5


@pytest.mark.parametrize("angle", [0.0, 0.35])
def test_all_48_orientations_as_the_references_have_them(tmp_path, angle):
    array = numbers(3, 4, 5)
    path = tmp_path / "a.nii"
    for order, signs in ORIENTATIONS:
        save(path, array, affine_of(order, signs, angle=angle))
        volume = read_case(case(path), ["x"])
        stored, grid = volume.channels[0], volume.grid

        turn = Reorientation.to("RAS", grid)
        closest = nib.as_closest_canonical(nib.load(path))
        np.testing.assert_array_equal(turn.apply(stored), np.asarray(closest.dataobj).T)
        same_as_reader(NibabelIOWithReorient(), path, turn, volume)

        turn = Reorientation.to("RAS", grid, like="itk")
        oriented = sitk.DICOMOrient(sitk.ReadImage(str(path)), "RAS")
        np.testing.assert_array_equal(turn.apply(stored), sitk.GetArrayFromImage(oriented))
        same_as_reader(SimpleITKIOWithReorient(), path, turn, volume)

        for letters in ("LPS", "SAL", "IRP"):
            oriented = sitk.DICOMOrient(sitk.ReadImage(str(path)), letters)
            turned = Reorientation.to(letters, grid, like="itk").apply(stored)
            np.testing.assert_array_equal(turned, sitk.GetArrayFromImage(oriented))


def same_as_reader(reader, path, turn, volume):
    array, properties = reader.read_images([str(path)])
    np.testing.assert_array_equal(turn.apply(volume.channels[0]), array[0])
    spacing = turn.spacing(volume.grid.spacing_mm)
    np.testing.assert_allclose(properties["spacing"], spacing, rtol=1e-6)
    np.testing.assert_array_equal(turn.undo(array), volume.channels[0][None])


def test_letters_must_name_three_directions(tmp_path):
    grid = read_case(case(save(tmp_path / "a.nii", numbers(3, 4, 5))), ["x"]).grid
    for letters in ("RA", "RAL", "XYZ", "RRS", "RASS", ""):
        with pytest.raises(ValueError, match="three directions"):
            Reorientation.to(letters, grid)
