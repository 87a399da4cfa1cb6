"""Images in and masks out: the same grid in every case, or one line that says why not."""

import gzip
import json
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.io.grid import Grid
from dinomed3d.inference.io.image import check_mask, read_case, read_grid, read_mask, write_mask
from tests.dinomed3d.inference.image_files import (
    ORIENTATIONS,
    affine_of,
    case,
    check_same_grid,
    numbers,
    save,
    scan,
)


def patched(path: Path, to: Path, **fields) -> Path:
    """A copy of an unpacked NIfTI-1 file with header fields changed."""
    content = path.read_bytes()
    header = nib.Nifti1Header(content[:348], check=False)
    for name, value in fields.items():
        header[name] = value
    to.write_bytes(header.binaryblock + content[348:])
    return to


def mask_of(grid: Grid) -> np.ndarray:
    return (np.arange(np.prod(grid.shape_zyx)) % 3).astype(np.uint8).reshape(grid.shape_zyx)


def keeps_grid(path: Path, out: Path) -> Grid:
    """Write a mask for this image and compare what independent readers see of both."""
    volume = read_case(case(path), ["image"])
    grid = volume.grid
    assert volume.channels[0].shape == grid.shape_zyx
    assert read_grid(scan(path)) == grid
    assert Grid.from_json(json.loads(json.dumps(grid.to_json()))) == grid
    target = out / f"mask{grid.ending}"
    mask = mask_of(grid)
    write_mask(mask, grid, target)
    assert check_mask(target, grid) is None
    np.testing.assert_array_equal(read_case(case(target), ["mask"]).channels[0], mask)
    check_same_grid(path, target)
    return grid


def test_the_first_voxel_and_its_millimetres_by_hand(tmp_path):
    array = np.zeros((4, 3, 2), np.int16)
    array[3, 1, 0] = 7
    path = save(tmp_path / "a.nii", array, np.diag([-2.0, 3, 4, 1]))
    volume = read_case(case(path), ["CT"])
    assert volume.channels[0].shape == (2, 3, 4) and volume.channels[0][0, 1, 3] == 7
    assert volume.channels[0].dtype == np.int16
    assert volume.grid.spacing_mm == (4, 3, 2)
    assert volume.grid.orientation == "LAS"
    assert volume.grid.voxel_ml == pytest.approx(0.024)
    assert volume.notes == []


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_all_48_orientations_oblique_and_sheared(tmp_path, ending, kind):
    array = numbers(3, 4, 5)
    for index, (order, signs) in enumerate(ORIENTATIONS):
        for angle, shear in ((0, 0), (0.3, 0), (0.3, 0.2)):
            affine = affine_of(order, signs, angle=angle, shear=shear)
            path = save(tmp_path / f"a{ending}", array, affine, kind=kind)
            grid = keeps_grid(path, tmp_path)
            np.testing.assert_allclose(grid.matrix, affine, atol=1e-4)
            np.testing.assert_array_equal(read_case(case(path), ["x"]).channels[0], array.T)
            if index > 3 and ending == ".nii.gz":
                break


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_all_48_orientations_through_itk(tmp_path, ending):
    array = numbers(5, 4, 3)
    for order, signs in ORIENTATIONS:
        for angle, shear in ((0, 0), (0.3, 0), (0.3, 0.2)):
            affine = affine_of(order, signs, angle=angle, shear=shear)
            image = sitk.GetImageFromArray(array)
            lps = np.diag([-1, -1, 1]) @ affine[:3]
            spacing = np.linalg.norm(lps[:, :3], axis=0)
            image.SetSpacing(spacing.tolist())
            image.SetOrigin(lps[:, 3].tolist())
            image.SetDirection((lps[:, :3] / spacing).ravel().tolist())
            path = tmp_path / f"a{ending}"
            sitk.WriteImage(image, str(path))
            grid = keeps_grid(path, tmp_path)
            np.testing.assert_allclose(grid.matrix, affine, atol=1e-9)
            np.testing.assert_array_equal(read_case(case(path), ["x"]).channels[0], array)


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 2), (2, 4), (1, 1)])
def test_codes_and_both_matrices_are_kept(tmp_path, codes):
    path = save(tmp_path / "a.nii", numbers(3, 4, 5), codes=codes)
    keeps_grid(path, tmp_path)
    notes = read_case(case(path), ["x"]).notes
    assert any("no orientation" in note for note in notes) == (codes == (0, 0))


def test_two_affines_that_differ_are_both_kept_and_reported(tmp_path):
    path = save(tmp_path / "a.nii", numbers(3, 4, 5))
    moved = patched(path, tmp_path / "b.nii", qoffset_x=20.0)
    keeps_grid(moved, tmp_path)
    (note,) = read_case(case(moved), ["x"]).notes
    assert "32.5 mm apart" in note


EXTENDED = bytes([1, 0, 0, 0])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("fields", "more", "refused"),
    [
        # 5 x 4 x 30 voxels of int16 begin at byte 352; one more plane has 40 bytes at the least
        ({"datatype": 2, "bitpix": 8}, b"", True),  # int16 that the header calls uint8
        ({"dim": [3, 5, 4, 29, 1, 1, 1, 1]}, b"", True),
        ({"dim": [3, 4, 4, 30, 1, 1, 1, 1]}, b"", True),
        ({}, bytes(40), True),
        ({}, bytes(39), False),
        ({}, b"tail", False),
        ({"dim": [3, 5, 4, 31, 1, 1, 1, 1]}, b"", True),  # shorter
        ({}, None, True),
    ],
)
def test_files_that_are_longer_or_shorter_than_they_say(tmp_path, ending, fields, more, refused):
    whole = save(tmp_path / "whole.nii", numbers(5, 4, 30))
    content = patched(whole, tmp_path / "changed.nii", **fields).read_bytes()
    content = content[:-1] if more is None else content + more
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    if refused:
        with pytest.raises(CaseError, match="longer than its header says|is cut off") as caught:
            read_case(case(path), ["x"])
        assert str(path) in str(caught.value)
        return
    volume = read_case(case(path), ["x"])
    assert volume.notes == [
        f"{len(more)} bytes follow its voxels, fewer than one more plane of them takes; ignored"
    ]
    np.testing.assert_array_equal(volume.channels[0], numbers(5, 4, 30).T)


def test_voxels_that_begin_in_an_extension_are_refused(tmp_path):
    content = save(tmp_path / "a.nii", numbers(9, 9, 9)).read_bytes()
    extension = struct.pack("<ii", 16, 6) + b"comments"
    shifted = content[:348] + EXTENDED + extension + content[352:]
    (tmp_path / "a.nii").write_bytes(shifted)
    with pytest.raises(CaseError, match="vox_offset"):
        read_case(case(tmp_path / "a.nii"), ["x"])
    right = patched(tmp_path / "a.nii", tmp_path / "b.nii", vox_offset=368)
    assert read_case(case(right), ["x"]).notes == []


@pytest.mark.parametrize("shape", [(1, 4, 5), (4, 1, 5), (4, 5, 1), (1, 1, 1), (4, 5, 6, 1, 1)])
def test_axes_of_one_voxel(tmp_path, shape):
    grid = keeps_grid(save(tmp_path / "a.nii.gz", numbers(*shape)), tmp_path)
    assert grid.stored_shape == shape
    assert grid.shape_zyx == shape[2::-1]
    assert grid.spacing_mm == pytest.approx((2.5, 1.1, 0.7))


@pytest.mark.parametrize("third", [0.0, 1.0, -2.0])
def test_a_nifti_file_of_two_axes(tmp_path, third):
    path = save(tmp_path / "a.nii", numbers(4, 5), affine_of())
    raw = patched(path, tmp_path / "b.nii", pixdim=[1, 0.7, 1.1, third, 0, 0, 0, 0])
    grid = read_grid(scan(raw))
    assert grid.shape_zyx == (1, 5, 4) and grid.stored_shape == (4, 5)
    assert grid.spacing_mm == pytest.approx((999 * 1.1, 1.1, 0.7))
    assert grid.voxel_ml == pytest.approx(0.77e-3)
    write_mask(mask_of(grid), grid, tmp_path / "m.nii")
    assert check_mask(tmp_path / "m.nii", grid) is None
    assert nib.load(tmp_path / "m.nii").shape == (4, 5)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_an_itk_file_of_two_axes(tmp_path, ending):
    image = sitk.GetImageFromArray(numbers(5, 4))
    image.SetSpacing([0.5, 2.0])
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    grid = keeps_grid(tmp_path / f"a{ending}", tmp_path)
    assert grid.spacing_mm == (1998.0, 2.0, 0.5) and grid.stored_shape == (4, 5)


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "<i2", ">i2", ">u2", "<i4", ">f4", "<f8", ">f8", "<i8", "<u8", ">u4"]
)
def test_types_and_byte_orders(tmp_path, dtype):
    array = numbers(3, 4, 5, dtype=dtype)
    path = tmp_path / "a.nii"
    image = nib.Nifti1Image(array, affine_of(), dtype=array.dtype)
    header = nib.Nifti1Header(endianness=array.dtype.str[0] if array.dtype.str[0] in "<>" else "<")
    for key in ("dim", "pixdim", "sform_code", "srow_x", "srow_y", "srow_z", "datatype", "bitpix"):
        header[key] = image.header[key]
    header["vox_offset"], header["scl_slope"] = 352, 1
    path.write_bytes(header.binaryblock + bytes(4) + array.tobytes("F"))
    (channel,) = read_case(case(path), ["x"]).channels
    wide = array.dtype.itemsize == 8
    assert channel.dtype == (np.float32 if wide else array.dtype.newbyteorder("="))
    np.testing.assert_array_equal(channel, array.T)
    keeps_grid(path, tmp_path)


def test_slope_and_intercept_give_what_nibabel_gives(tmp_path, monkeypatch):
    monkeypatch.setattr("dinomed3d.inference.io.voxels.CHUNK_BYTES", 300)
    array = numbers(7, 6, 9)
    path = save(tmp_path / "a.nii.gz", array, scl_slope=0.37, scl_inter=-1024.5)
    (channel,) = read_case(case(path), ["x"]).channels
    assert channel.dtype == np.float32
    np.testing.assert_array_equal(channel, nib.load(path).get_fdata().astype(np.float32).T)
    keeps_grid(path, tmp_path)
    unscaled = save(tmp_path / "b.nii", array, scl_slope=0.0, scl_inter=5.0)
    assert read_case(case(unscaled), ["x"]).channels[0].dtype == np.int16


def test_other_units_become_millimetres_and_stay_in_the_mask(tmp_path):
    affine = affine_of(spacing=(700, 1100, 2500))
    affine[:3, 3] *= 1000
    path = save(tmp_path / "a.nii", numbers(3, 4, 5), affine, xyzt_units=3)
    grid = keeps_grid(path, tmp_path)
    assert grid.spacing_mm == pytest.approx((2.5, 1.1, 0.7))
    np.testing.assert_allclose(grid.matrix, affine_of(), atol=1e-4)
    image = sitk.ReadImage(str(path))
    assert image.GetSpacing() == pytest.approx(grid.spacing_mm[::-1])
    assert np.diag([-1, -1, 1]) @ image.GetOrigin() == pytest.approx(grid.matrix[:3, 3])


def test_four_axes_hold_the_channels(tmp_path):
    array = numbers(3, 4, 5, 2)
    path = save(tmp_path / "a.nii.gz", array)
    volume = read_case(case(path), ["T1", "T2"])
    for index, channel in enumerate(volume.channels):
        np.testing.assert_array_equal(channel, array[..., index].T)
    assert volume.grid.stored_shape == (3, 4, 5)
    write_mask(mask_of(volume.grid), volume.grid, tmp_path / "m.nii.gz")
    assert check_mask(tmp_path / "m.nii.gz", volume.grid) is None
    np.testing.assert_array_equal(nib.load(tmp_path / "m.nii.gz").affine, nib.load(path).affine)
    assert read_grid(scan(path), channels=2) == volume.grid
    with pytest.raises(CaseError, match="3 x 4 x 5 x 2.*save each"):
        read_case(case(path), ["T1"])
    with pytest.raises(CaseError, match="4D with 3 channels"):
        read_case(case(path), ["T1", "T2", "T3"])
    image = sitk.GetImageFromArray(array.T, isVector=False)
    sitk.WriteImage(image, str(tmp_path / "b.mha"))
    volume = read_case(case(tmp_path / "b.mha"), ["T1", "T2"])
    np.testing.assert_array_equal(volume.channels[1], array[..., 1].T)
    write_mask(mask_of(volume.grid), volume.grid, tmp_path / "m.mha")
    assert sitk.ReadImage(str(tmp_path / "m.mha")).GetSize() == (3, 4, 5)


def test_several_scans_on_one_grid(tmp_path):
    array = numbers(3, 4, 5)

    def at(name, height, shape=(3, 4, 5)):
        affine = affine_of()
        affine[:3, 3] = (0, 0, height)
        return save(tmp_path / name, numbers(*shape) + 1, affine)

    first = at("a.nii", -1)
    volume = read_case(case(first, at("b.nii", -1 + 5e-4)), ["T1", "T2"])
    assert volume.notes == [] and volume.grid == read_grid(scan(first))
    np.testing.assert_array_equal(volume.channels, [array.T + 1] * 2)
    (note,) = read_case(case(first, at("b.nii", -1 + 5e-3)), ["T1", "T2"]).notes
    assert "T2" in note and "0.005 mm" in note
    for other, names, reason in (
        (at("c.nii", -0.5), ["T1", "T2"], "0.5 mm apart"),
        (at("d.nii", -1, (3, 4, 6)), ["T1", "T2"], "shapes"),
        (at("e.nii", -1), ["T1", "T2", "T3"], "must have 3 scans"),
    ):
        with pytest.raises(CaseError, match=reason):
            read_case(case(first, other), names)


def test_paths_that_are_not_a_readable_file(tmp_path):
    (tmp_path / "folder.nii").mkdir()
    for name in ("folder.nii", "no.nii", "no.nrrd", "a.mgz"):
        with pytest.raises(CaseError, match=name):
            read_grid(scan(tmp_path / name, tmp_path.joinpath(name).suffix))


NRRD = "NRRD0004\ntype: int16\ndimension: {}\nsizes: {}\nencoding: raw\nendian: little\n{}\n\n"
MHA = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "CompressedData = False\n{}\nDimSize = 4 3 2\nElementType = MET_SHORT\n"
    "ElementDataFile = LOCAL\n"
)
LPS = "space: LPS\nspace directions: (2,0,0) {} (0,0,4)"


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("n.nrrd", NRRD.format(3, "4 3 2", "spacings: 2 3 4"), None),
        ("n.nrrd", NRRD.format(4, "4 3 2 1", "spacings: 1 2 3 4"), None),
        ("n.nrrd", NRRD.format(4, "4 3 1 2", "spacings: 1 2 3 4"), "4 x 3 x 1 x 2"),
        ("n.nrrd", NRRD.format(3, "4 3 2", "spacings: 2 3 -4"), "must be positive"),
        ("n.nrrd", NRRD.format(3, "4 3 2", "spacings: two 3 4"), "must be numbers"),
        ("n.nrrd", NRRD.format(3, "4 3 2", LPS.format("(2,0,0)")), "."),
        ("n.nrrd", NRRD.format(3, "4 3 2", LPS.format("none")), "no direction"),
        ("m.mha", MHA.format("ElementSize = 2 3 4"), None),
        ("m.mha", MHA.format("ElementSpacing = 2 3 0"), "must be positive"),
        ("m.mha", MHA.format("ElementSpacing = 2 3 4\nTransformMatrix = 1 0 0 1 0 0 0 0 1"), "."),
        ("m.mha", MHA.format("ElementSpacing = 2 3 4\nElementNumberOfChannels = 3"), "."),
    ],
)
def test_itk_headers(tmp_path, name, text, reason):
    path = tmp_path / name
    path.write_bytes(text.encode() + np.arange(24, dtype="<i2").tobytes())
    if reason is None:
        keeps_grid(path, tmp_path)
        return
    with pytest.raises(CaseError, match=reason) as caught:
        read_case(case(path), ["x"])
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "signs"),
    [("LPS", (-1, -1)), ("LAS", (-1, 1)), ("RAS", (1, 1)), ("right-anterior-superior", (1, 1))],
)
def test_nrrd_spaces(tmp_path, space, signs):
    axes = "space directions: (2,0,0) (0,3,0) (0,0,4)\nspace origin: (10,20,30)"
    path = tmp_path / "n.nrrd"
    text = NRRD.format(3, "4 3 2", f"space: {space}\n{axes}")
    path.write_bytes(text.encode() + np.arange(24, dtype="<i2").tobytes())
    grid = keeps_grid(path, tmp_path)
    expected = np.array([[2 * signs[0], 0, 0, 10 * signs[0]], [0, 3 * signs[1], 0, 20 * signs[1]]])
    np.testing.assert_array_equal(grid.matrix[:2], expected)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_itk_files_whose_packed_voxels_are_damaged(tmp_path, ending):
    """SimpleITK alone gives other voxels for such a MetaImage, and no error."""
    rng = np.random.default_rng(0)
    array = rng.integers(0, 50, (9, 10, 11)).astype(np.int16)
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(array), str(path), True)
    content = path.read_bytes()
    for at in rng.integers(len(content) // 2, len(content), 40):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        with pytest.raises(CaseError, match="damaged|cut off"):
            read_case(case(path), ["x"])


def test_values_of_itk_files(tmp_path):
    for array in (numbers(2, 3, 4, dtype=np.float64), numbers(2, 3, 4, dtype=np.uint64)):
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.mha"))
        (channel,) = read_case(case(tmp_path / "a.mha"), ["x"]).channels
        assert channel.dtype == np.float32
        np.testing.assert_array_equal(channel, array)


def test_no_free_text_of_the_scan_reaches_grid_or_mask(tmp_path):
    fields = dict(descrip=b"John Doe", db_name=b"J. Doe", vox_offset=352 + 64)
    path = save(tmp_path / "a.nii", numbers(3, 4, 5), **fields)
    content = path.read_bytes()
    extended = content[:348] + b"\1\0\0\0" + struct.pack("<ii", 64, 6) + b"John Doe".ljust(56)
    path.write_bytes(extended + content[352:])
    np.testing.assert_array_equal(read_case(case(path), ["x"]).channels[0], numbers(3, 4, 5).T)
    grid = keeps_grid(path, tmp_path)
    assert b"Doe" not in (tmp_path / "mask.nii").read_bytes()
    assert grid == read_grid(scan(save(tmp_path / "b.nii", numbers(3, 4, 5))))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_masks_are_deterministic_and_hold_large_labels(tmp_path, ending):
    image = sitk.GetImageFromArray(numbers(5, 4, 3))
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(path))
    grid = read_grid(scan(path))
    mask = mask_of(grid).astype(np.uint16) * 300
    write_mask(mask, grid, tmp_path / f"one{ending}")
    write_mask(mask[::-1].copy()[::-1], grid, tmp_path / f"two{ending}")
    read = read_case(case(tmp_path / f"one{ending}"), ["mask"]).channels[0]
    np.testing.assert_array_equal(read, mask)
    one = (tmp_path / f"one{ending}").read_bytes()
    assert one == (tmp_path / f"two{ending}").read_bytes()


def test_check_mask_says_what_is_wrong(tmp_path):
    path = save(tmp_path / "a.nii.gz", numbers(3, 4, 5))
    grid = read_grid(scan(path))
    good = tmp_path / "m.nii.gz"
    write_mask(mask_of(grid), grid, good)
    assert check_mask(good, grid) is None
    save(tmp_path / "half.nii.gz", mask_of(grid).T.astype(np.float32) / 2)
    assert "whole numbers" in check_mask(tmp_path / "half.nii.gz", grid)
    assert "No such" in check_mask(tmp_path / "no.nii.gz", grid)
    affine = affine_of()
    affine[0, 3] += 1
    save(tmp_path / "moved.nii.gz", mask_of(grid).T, affine)
    assert "lies 1 mm off" in check_mask(tmp_path / "moved.nii.gz", grid)
    save(tmp_path / "whole.nii", mask_of(grid).T)
    for field, value in (("qoffset_x", 20), ("quatern_b", 0.1)):
        wrong = patched(tmp_path / "whole.nii", tmp_path / "forms.nii", **{field: value})
        (tmp_path / "forms.nii.gz").write_bytes(gzip.compress(wrong.read_bytes()))
        assert "qform, sform" in check_mask(tmp_path / "forms.nii.gz", grid)
    save(tmp_path / "shape.nii.gz", np.ones((3, 4, 6), np.uint8))
    assert "(3, 4, 6)" in check_mask(tmp_path / "shape.nii.gz", grid)
    good.write_bytes(good.read_bytes()[:-8])
    assert "cut off" in check_mask(good, grid)


@pytest.mark.parametrize("stored", [np.int16, np.int32, np.float32])
def test_a_mask_that_itk_or_nibabel_has_saved_again_is_still_one(tmp_path, stored):
    angle = np.radians(20)
    affine = affine_of()
    affine[:2, :2] = affine[:2, :2] @ [
        [np.cos(angle), -np.sin(angle)],
        [np.sin(angle), np.cos(angle)],
    ]
    affine[:3, :3] = np.linalg.qr(affine[:3, :3])[0] @ np.diag([1.5, 0.7, 3])
    grid = read_grid(scan(save(tmp_path / "a.nii.gz", numbers(3, 4, 5), affine)))
    path = tmp_path / "m.nii.gz"
    mask = mask_of(grid)
    mask[0, 0, 0] = 200
    write_mask(mask, grid, path)
    image = sitk.Cast(
        sitk.ReadImage(str(path)), sitk.GetImageFromArray(mask.astype(stored)).GetPixelID()
    )
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    sitk.WriteImage(image, str(path))
    assert check_mask(path, grid) is None
    read = read_mask(path, grid)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, mask)
    save(tmp_path / "codes.nii.gz", mask.T.astype(stored), affine, codes=(0, 2))
    assert check_mask(tmp_path / "codes.nii.gz", grid) is None


def test_write_mask_leaves_nothing_behind_and_keeps_what_was_there(tmp_path, monkeypatch):
    grid = read_grid(scan(save(tmp_path / "a.nii", numbers(3, 4, 5))))
    out = tmp_path / "out"
    out.mkdir()
    (out / "m.nii").write_bytes(b"before")
    monkeypatch.setattr("os.replace", raising)
    with pytest.raises(OSError, match="disk full"):
        write_mask(mask_of(grid), grid, out / "m.nii")
    assert [p.name for p in out.iterdir()] == ["m.nii"]
    assert (out / "m.nii").read_bytes() == b"before"
    for mask, path in (
        (mask_of(grid)[1:], out / "m.nii"),
        (mask_of(grid).astype(float), out / "m.nii"),
        (mask_of(grid), out / "m.nii.gz"),
    ):
        with pytest.raises(ValueError, match="write_mask"):
            write_mask(mask, grid, path)


def raising(*_):
    raise OSError("disk full")


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_headers_with_random_bytes_are_read_or_refused(tmp_path, ending):
    rng = np.random.default_rng(1)
    path = tmp_path / f"a{ending}"
    if ending.startswith(".nii"):
        save(path, numbers(5, 4, 3), affine_of(angle=0.2))
    else:
        sitk.WriteImage(sitk.GetImageFromArray(numbers(3, 4, 5)), str(path))
    packed = ending == ".nii.gz"
    whole = gzip.decompress(path.read_bytes()) if packed else path.read_bytes()
    for _ in range(100):
        content = bytearray(whole)
        for at in rng.integers(0, 348, rng.integers(1, 4)):
            content[at] = rng.integers(256)
        path.write_bytes(gzip.compress(content) if packed else content)
        try:
            grid = read_case(case(path), ["x"]).grid
        except CaseError as err:
            assert "\n" not in str(err)
            continue
        target = tmp_path / f"mask{ending}"
        write_mask(mask_of(grid), grid, target)
        assert check_mask(target, grid) is None


@pytest.mark.parametrize(
    ("ending", "line", "side_mm"),
    [
        (".nrrd", b'space units: "microns" "microns" "microns"', 0.7),
        (".nrrd", b'space units: "mm" "mm" "mm"', 700),
        (".mha", b"DistanceUnits = um", 0.7),
        (".mha", b"DistanceUnits = cm", 7000),
    ],
)
def test_units_of_text_headers_are_honoured(tmp_path, ending, line, side_mm):
    image = sitk.GetImageFromArray(numbers(5, 4, 3))
    image.SetSpacing((700.0, 1100.0, 2500.0))
    image.SetOrigin((1000.0, 2000.0, 3000.0))
    path = tmp_path / f"a{ending}"
    sitk.WriteImage(image, str(path))
    before, end, after = path.read_bytes().partition(
        b"\n\n" if ending == ".nrrd" else b"\nElementDataFile"
    )
    path.write_bytes(before + b"\n" + line + end + after)
    grid = keeps_grid(path, tmp_path)  # the mask's header has the scan's numbers and its unit
    factor = side_mm / 700
    np.testing.assert_allclose(grid.spacing_mm, np.multiply((2500, 1100, 700), factor))
    np.testing.assert_allclose(grid.matrix[:3, 3], np.multiply((-1000, -2000, 3000), factor))
    assert bool(read_case(case(path), ["image"]).notes) == (factor != 1)


def test_an_unknown_unit_is_refused(tmp_path):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(numbers(5, 4, 3)), str(path))
    head = b"\nElementDataFile"
    path.write_bytes(path.read_bytes().replace(head, b"\nDistanceUnits = furlong" + head))
    with pytest.raises(CaseError, match="unit must be mm, um, cm or m.* it is furlong"):
        read_grid(scan(path))
