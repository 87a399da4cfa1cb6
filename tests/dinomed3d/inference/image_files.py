"""Image files for tests: NIfTI with exactly the given header fields, which nibabel would repair."""

import gzip
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from dinomed3d.inference.case import Case, Scan

ORIENTATIONS = [
    (order, signs)
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def scan(path: Path, ending: str | None = None) -> Scan:
    known = (".nii.gz", ".nii", ".mha", ".nrrd")
    return Scan(
        files=(str(path),), ending=ending or next(e for e in known if path.name.endswith(e))
    )


def case(*paths: Path) -> Case:
    return Case(id="c", scans=tuple(scan(path) for path in paths))


def numbers(*shape: int, dtype: object = np.int16) -> np.ndarray:
    return (np.arange(np.prod(shape)) % 100).astype(dtype).reshape(shape)


def affine_of(order=(0, 1, 2), signs=(1, 1, 1), spacing=(0.7, 1.1, 2.5), angle=0.0, shear=0.0):
    """Axes permuted and flipped, then turned about two axes, and x slanted towards y."""
    turn = np.eye(3)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )
    slant = np.eye(3)
    slant[0, 1] = shear
    result = np.eye(4)
    result[:3, :3] = turn @ np.eye(3)[:, order] @ np.diag(signs) @ slant
    result[:3, :3] *= np.array(spacing) / np.linalg.norm(result[:3, :3], axis=0)
    result[:3, 3] = (-12.5, 30.25, -400.125)
    return result


def save(
    path: Path, array: np.ndarray, affine=None, *, codes=(1, 1), kind=nib.Nifti1Image, **fields
):
    """A NIfTI file with exactly these header fields."""
    affine = affine_of() if affine is None else affine
    image = kind(array, affine)
    image.set_sform(affine, codes[1])
    image.set_qform(affine, codes[0])
    image.header["pixdim"][1:4] = np.linalg.norm(affine[:3, :3], axis=0)
    image.header.set_xyzt_units("mm")
    header = image.header.copy()
    header["magic"] = b"n+1" if kind is nib.Nifti1Image else b"n+2\x00\r\n\x1a\n"
    header["vox_offset"] = header.sizeof_hdr + 4
    header["scl_slope"], header["scl_inter"] = 1, 0
    for name, value in fields.items():
        header[name] = value
    order = fields.get("order", "<")
    data = (
        header.binaryblock + bytes(4) + array.astype(array.dtype.newbyteorder(order)).tobytes("F")
    )
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path


def check_same_grid(scan_file: Path, mask_file: Path) -> None:
    """Other readers find a mask on exactly the voxels of its scan, which may have 2 channels."""
    if scan_file.suffix.lower() in (".mha", ".nrrd"):
        _check_in_itk(scan_file, mask_file)
    else:
        _check_in_nibabel(scan_file, mask_file)


def _check_in_nibabel(scan_file: Path, mask_file: Path) -> None:
    before, after = nib.load(scan_file), nib.load(mask_file)
    assert type(before) is type(after)
    assert after.shape == (before.shape[:3] if before.shape[3:] == (2,) else before.shape)
    np.testing.assert_array_equal(before.affine, after.affine)
    codes = ("qform_code", "sform_code", "xyzt_units", "srow_x", "srow_y", "srow_z")
    places = ("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
    for key in (*codes, *places):
        np.testing.assert_array_equal(before.header[key], after.header[key], key)
    axes = slice(0, 1 + min(3, len(before.shape)))
    np.testing.assert_array_equal(before.header["pixdim"][axes], after.header["pixdim"][axes])
    assert after.get_data_dtype() == np.uint8 and set(np.unique(after.dataobj)) <= {0, 1, 2}
    assert after.header.get_intent()[0] == "label"
    assert after.dataobj.slope == 1 and after.dataobj.inter == 0


def _check_in_itk(scan_file: Path, mask_file: Path) -> None:
    before, after = sitk.ReadImage(str(scan_file)), sitk.ReadImage(str(mask_file))
    if before.GetDimension() == 4 and before.GetSize()[3] == 2:
        before = before[:, :, :, 0]
    assert scan_file.suffix == mask_file.suffix
    assert after.GetSize() == before.GetSize() and after.GetPixelID() == sitk.sitkUInt8
    assert set(np.unique(sitk.GetArrayViewFromImage(after))) <= {0, 1, 2}
    for get in ("GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(
            getattr(after, get)(), getattr(before, get)(), rtol=1e-12, atol=1e-12, err_msg=get
        )
