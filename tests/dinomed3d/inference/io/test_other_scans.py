"""MetaImage and NRRD headers with voxels in a file of their own, GIPL, MGH and NIfTI pairs, against their libraries."""

import gzip
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.io.image import check_mask, read_case, read_grid, write_mask

VOXELS = np.random.default_rng(0).integers(-500, 500, (5, 6, 7)).astype(np.int16)
TURNED = np.array([[0.8, 0.6, 0], [-0.6, 0.8, 0], [0, 0, 1.0]])
RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def write(path: Path, voxels=VOXELS) -> np.ndarray:
    """A scan in the format of its name; gives its affine in RAS by the library that wrote it."""
    name = path.name
    if name.endswith((".mgz", ".mgh", ".hdr")):
        affine = np.eye(4)
        affine[:3, :3], affine[:3, 3] = TURNED * (0.5, 0.75, 2), (3, -4, 5)
        kind = nib.Nifti1Pair if name.endswith(".hdr") else nib.MGHImage
        nib.save(kind(voxels.T, affine), path)
        return affine
    image = sitk.GetImageFromArray(voxels)
    image.SetSpacing((0.5, 0.75, 2))
    image.SetOrigin((3, -4, 5))
    if "gipl" not in name:
        image.SetDirection(TURNED.ravel().tolist())
    sitk.WriteImage(image, str(path), useCompression=name.startswith("packed"))
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return RAS @ affine


def only(folder: Path):
    (case,) = find_cases(folder, channels=("CT",)).cases
    return case


NAMES = [
    *("a.mhd", "packed.mhd", "a.nhdr", "packed.nhdr", "a.gipl", "a.gipl.gz", "a.mgz", "a.mgh"),
    *("a.hdr", "A.HDR"),
]


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32])
@pytest.mark.parametrize("name", NAMES)
def test_voxels_and_places_equal_the_library(name, dtype, tmp_path):
    affine = write(tmp_path / name.lower(), VOXELS.astype(dtype))
    if name != name.lower():
        for file in tmp_path.iterdir():
            file.rename(tmp_path / file.name.upper())
    case = only(tmp_path)
    volume = read_case(case, ("CT",))
    assert np.array_equal(volume.channels[0], VOXELS.astype(dtype))
    np.testing.assert_allclose(volume.grid.matrix, affine, atol=1e-5)
    assert read_grid(case.scans[0]) == volume.grid
    mask = (VOXELS > 0).astype(np.uint8)
    path = tmp_path / "mask.nii.gz"
    write_mask(mask, volume.grid, path)
    assert check_mask(path, volume.grid) is None
    np.testing.assert_allclose(nib.load(path).affine, affine, atol=1e-5)


def test_the_file_of_the_voxels_is_part_of_the_scan(tmp_path):
    write(tmp_path / "a.mhd")
    assert [Path(file).name for file in only(tmp_path).scans[0].files] == ["a.mhd", "a.raw"]


def test_scaled_pairs(tmp_path):
    image = nib.Nifti1Pair(VOXELS.T, np.eye(4))
    image.header.set_slope_inter(2, -3)
    nib.save(image, tmp_path / "a.hdr")
    expected = np.asarray(nib.load(tmp_path / "a.hdr").dataobj, np.float32).T
    assert np.array_equal(read_case(only(tmp_path), ("CT",)).channels[0], expected)


@pytest.mark.parametrize("name", ["aseg.mgz", "labels.mhd", "labels.gipl"])
def test_label_images_are_left_out(name, tmp_path):
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[4:10, 5:15, 6:16] = 3
    labels[12:16, 5:15, 6:16] = 17
    write(tmp_path / name, labels)
    write(tmp_path / "scan.mgz")
    found = find_cases(tmp_path, channels=("CT",))
    assert found.ids == ["scan"] and "label image" in found.left_out[name]


def change(old: bytes, new: bytes):
    def apply(path):
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new, 1))

    return apply


def patch(at: int, new: bytes):
    def apply(path):
        content = bytearray(path.read_bytes())
        content[at : at + len(new)] = new
        path.write_bytes(content)

    return apply


def cut_voxel_file(suffix: str):
    def apply(path):
        voxel_file = path.with_suffix(suffix)
        voxel_file.write_bytes(voxel_file.read_bytes()[:-1])

    return apply


def lose(suffix: str):
    return lambda path: path.with_suffix(suffix).unlink()


def cut(path: Path) -> None:
    content = path.read_bytes()
    if path.suffix == ".mgz":
        content = gzip.compress(gzip.decompress(content)[: 284 + 100])
    path.write_bytes(content[:-1] if path.suffix != ".mgz" else content)


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        ("a.mhd", change(b"a.raw", b"../a.raw"), "one file of its own folder"),
        ("a.mhd", change(b"a.raw", b"/etc/passwd"), "one file of its own folder"),
        ("a.mhd", change(b"a.raw", b"LIST"), "one file of its own folder"),
        ("a.mhd", change(b"a.raw", b"a%03d.raw 1 5 1"), "one file of its own folder"),
        ("a.mhd", change(b"a.raw", b"b.raw"), "no file 'b.raw'"),
        ("a.mhd", change(b"ElementDataFile", b"HeaderSize = 9\nElementDataFile"), "first byte"),
        ("a.mhd", cut_voxel_file(".raw"), "is cut off"),
        ("a.mhd", change(b"DimSize = 7 6 5", b"DimSize = 7 6 -5"), "axes"),
        ("a.nhdr", change(b"a.raw", b"..\\a.raw"), "one file of its own folder"),
        ("a.nhdr", change(b"a.raw", b"LIST\na.raw"), "one file of its own folder"),
        ("a.nhdr", change(b"encoding", b"byte skip: -1\nencoding"), "first byte"),
        ("a.nhdr", cut_voxel_file(".raw"), "is cut off"),
        ("a.nhdr", lose(".raw"), "no file 'a.raw'"),
        ("a.gipl", cut, "is cut off"),
        ("a.gipl", patch(252, b"\0"), "not GIPL"),
        ("a.gipl", patch(8, b"\0\1"), "data type 1"),
        ("a.gipl", patch(10, b"\xff\xc0\0\0"), "voxel size"),
        ("a.mgz", cut, "is cut off"),
        ("a.mgh", patch(0, b"\1"), "not FreeSurfer"),
        ("a.mgh", patch(4, b"\x7f\xff\xff\xff"), "32767 voxels along an axis"),
        ("a.mgh", patch(6, b"\x7f\xff"), "is cut off"),
        ("a.mgh", patch(4, b"\xff"), "must hold voxels"),
        ("a.mgh", patch(16, b"\0\0\0\2"), "one 3D image"),
        ("a.mgh", patch(20, b"\0\0\0\x63"), "data type 99"),
        ("a.hdr", patch(344, b"\0\0\0\0"), "which side is left"),
        ("a.hdr", cut_voxel_file(".img"), "is cut off"),
        ("a.hdr", lose(".img"), "no a.img"),
        ("a.hdr", patch(108, b"\0\0\x80\xbf"), "must start at a byte"),
        ("a.hdr", lambda path: path.write_bytes(b"ENVI\ntext"), "no header of NIfTI"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(name, damage, reason, tmp_path):
    write(tmp_path / name)
    (tmp_path.parent / "a.raw").write_bytes(bytes(500))
    damage(tmp_path / name)
    scan = only(tmp_path).scans[0]
    with pytest.raises(CaseError, match=reason) as caught:
        read_grid(scan)
        read_case(replace(only(tmp_path), scans=(scan,)), ("CT",))
    assert name in str(caught.value) and "\n" not in str(caught.value)
