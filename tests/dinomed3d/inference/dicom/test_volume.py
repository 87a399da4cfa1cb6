"""DICOM series: grouped by header, ordered by position, read as other readers do, or refused."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.pixels import apply_modality_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.series import find_series, find_series_in_archive
from dinomed3d.inference.dicom.volume import read_series, series_grid, series_scan
from tests.dinomed3d.inference.dicom.dicom_series import Change, write_object, write_series

OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def scan_of(folder: Path) -> Scan:
    found = find_series(sorted(folder.iterdir()))
    assert len(found.series) == 1
    return series_scan(found.series[0])


def test_slices_are_sorted_by_position_and_rescaled(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hounsfield = write_series(tmp_path, change=set_to(1, PatientID="not\0printable"))
    scan = scan_of(tmp_path)
    assert [Path(file).name for file in scan.files] == ["3.dcm", "10.dcm", "6.dcm", "2.dcm"]
    assert (scan.ending, scan.series) == (".dcm", "series 3, axial, 4 files")
    voxels, stack = read_series(scan)
    np.testing.assert_array_equal(voxels, hounsfield)
    assert voxels.dtype == np.int16
    assert stack.spacing_zyx == pytest.approx((2.0, 0.8, 0.7))
    # LPS origin (-10, 20, 30) is RAS (10, -20, 30); x and y run against R and A
    expected = [[-0.7, 0, 0, 10], [0, -0.8, 0, -20], [0, 0, 2, 30], [0, 0, 0, 1]]
    np.testing.assert_allclose(stack.affine, expected)
    grid = series_grid(scan)
    assert (grid.shape_zyx, grid.spacing_zyx, grid.notes) == ((4, 5, 6), stack.spacing_zyx, ())
    np.testing.assert_array_equal(grid.affine, stack.affine)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("cosines", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), OBLIQUE])
def test_volume_equals_those_of_itk_and_highdicom(
    tmp_path: Path, cosines: tuple[float, ...]
) -> None:
    write_series(tmp_path, cosines=cosines, change=set_to(FrameOfReferenceUID="1.2.3.5"))
    scan = scan_of(tmp_path)
    assert_as_itk(scan)
    assert_as_highdicom(scan)


def assert_as_itk(scan: Scan) -> None:
    """Voxels, spacing, and where the corners lie."""
    voxels, stack = read_series(scan)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(scan.files)
    image = reader.Execute()
    np.testing.assert_array_equal(voxels, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(stack.spacing_zyx, image.GetSpacing()[::-1], rtol=1e-6)
    z, y, x = voxels.shape
    for corner in [(0, 0, 0), (x - 1, 0, 0), (0, y - 1, 0), (x - 1, y - 1, z - 1)]:
        left, posterior, up = image.TransformIndexToPhysicalPoint(corner)
        np.testing.assert_allclose(
            stack.affine[:3] @ (*corner, 1), (-left, -posterior, up), atol=1e-3
        )


def assert_as_highdicom(scan: Scan) -> None:
    """Voxels and affine of highdicom's volume, brought from its order of axes and LPS to ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        datasets = [pydicom.dcmread(file) for file in scan.files]
        volume = highdicom.get_volume_from_series(datasets)
    voxels, stack = read_series(scan)
    theirs = np.diag([-1, -1, 1, 1.0]) @ volume.affine[:, [2, 1, 0, 3]]  # (z, y, x), LPS
    array = volume.array
    if theirs[:3, 2] @ stack.affine[:3, 2] < 0:  # its slices may run the other way
        array = array[::-1]
        theirs[:3, 3] += theirs[:3, 2] * (len(array) - 1)
        theirs[:3, 2] *= -1
    np.testing.assert_array_equal(voxels, array)
    np.testing.assert_allclose(stack.affine, theirs, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "shape", "spacing"),
    [
        ("totalseg_samples/ct_dicom", (20, 512, 512), (2.0, 0.9765625, 0.9765625)),
        ("dicom_torchio_ct", (17, 128, 88), (2.0, 2.0, 2.0)),
        ("hippocrop_dicom/Study1_13_HCropVolume", (32, 51, 35), (1.0, 1.0, 1.0)),
        ("hippocrop_dicom/Study2_14_HCropVolume", (35, 48, 36), (1.0, 1.0, 1.0)),
        ("hippocrop_dicom/Study3_11_HCropVolume", (40, 50, 34), (1.0, 1.0, 1.0)),
    ],
)
def test_real_series_equal_itk(
    shared: Path, name: str, shape: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    scan = scan_of(shared / "data" / "medical" / name)
    grid = series_grid(scan)
    assert (grid.shape_zyx, grid.spacing_zyx) == (shape, spacing)
    assert_as_itk(scan)
    if name.startswith("hippocrop"):  # the others have lost UIDs that highdicom needs
        assert_as_highdicom(scan)


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian],
)
def test_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    def change(dataset, z):
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()

    hounsfield = write_series(tmp_path, syntax=syntax, change=change)
    np.testing.assert_array_equal(read_series(scan_of(tmp_path))[0], hounsfield)


def test_without_preamble(tmp_path: Path) -> None:
    hounsfield = write_series(tmp_path, name=lambda z: f"slice{z}")
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        path.write_bytes(content[content.index(b"\x08\x00\x08\x00") :])
    np.testing.assert_array_equal(read_series(scan_of(tmp_path))[0], hounsfield)


def test_fractional_slopes_of_each_slice_are_kept(tmp_path: Path) -> None:
    def change(dataset, z):  # as in PET; the first slice alone would be read as integers
        dataset.RescaleSlope, dataset.RescaleIntercept = 1 + z / 4, 0

    hounsfield = write_series(tmp_path, change=change)
    voxels = read_series(scan_of(tmp_path))[0]
    factors = np.array([1, 1.25, 1.5, 1.75])[:, None, None]
    np.testing.assert_allclose(voxels, (hounsfield + 1024.0) * factors)
    assert voxels.dtype == np.float32


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, RLELossless],
)
@pytest.mark.parametrize("signed", [0, 1])
def test_values_that_are_shown_inverted_are_those_that_are_stored(
    tmp_path: Path, signed: int, syntax: str
) -> None:
    def change(dataset, z):
        dataset.PhotometricInterpretation = "MONOCHROME1" if z != 2 else "MONOCHROME2"
        dataset.PixelRepresentation = signed
        if syntax == RLELossless:
            dataset.compress(RLELossless, generate_instance_uid=False)

    first = ExplicitVRLittleEndian if syntax == RLELossless else syntax
    hounsfield = write_series(tmp_path, shape=(16, 18), change=change, syntax=first)
    scan = scan_of(tmp_path)
    voxels, stack = read_series(scan)
    np.testing.assert_array_equal(voxels, hounsfield)  # ITK: 4095 - 2048 less them
    dataset = pydicom.dcmread(scan.files[1])
    np.testing.assert_array_equal(voxels[1], apply_modality_lut(dataset.pixel_array, dataset))
    assert [note.partition(";")[0] for note in stack.notes] == [
        "its series says that viewers show it inverted (MONOCHROME1)"
    ]
    assert series_grid(scan).notes == stack.notes


def test_series_are_grouped_and_objects_without_slices_counted(tmp_path: Path) -> None:
    for number, name in ((4, "dünn"), (3, "thin")):
        change = set_to(SpecificCharacterSet="ISO_IR 192")
        files = {"name": lambda z, n=number: f"{n}-{z}", "change": change}
        write_series(tmp_path, number=number, description=name, **files)

    def turned(dataset, z):
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0] if z % 2 else [0, 1, 0, 0, 0, -1]

    scout = set_to(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_series(tmp_path, slices=1, name=lambda z: "scout", change=scout)
    write_series(
        tmp_path, description="3-plane loc", name=lambda z: f"loc{z}", slices=3, change=turned
    )
    storage = "1.2.840.10008.5.1.4.1.1."
    write_object(tmp_path, "report", SOPClassUID=storage + "88.33", Modality="SR")
    write_object(tmp_path, "seg", SOPClassUID=storage + "66.4", Modality="SEG", Rows=4, Columns=4)
    write_object(tmp_path, "rt", SOPClassUID=storage + "481.3", Modality="RTSTRUCT")
    write_object(tmp_path, "pr", SOPClassUID=storage + "11.1", Modality="PR")
    write_object(tmp_path, "dose", SOPClassUID=storage + "7", Modality="OT", Rows=4, Columns=4)
    (tmp_path / "notes.txt").write_text("none of this is DICOM")
    found = find_series(sorted(tmp_path.iterdir()))
    assert [series.label for series in found.series] == [
        "series 3, thin, 4 files",
        "series 4, dünn, 4 files",
    ]
    assert found.ignored == {
        "DICOM localizer": 4,
        "DICOM Comprehensive SR": 1,
        "DICOM Segmentation": 1,
        "DICOM RT Structure Set": 1,
        "DICOM Grayscale Softcopy Presentation State": 1,
        "DICOM secondary capture (screenshot)": 1,
    }
    assert [Path(path).name for path in found.others] == ["notes.txt"]
    assert found.broken == {}


def test_removed_uids_do_not_join_series(tmp_path: Path) -> None:
    write_series(tmp_path, uid="", number=1, name=lambda z: f"a{z}")
    write_series(tmp_path, uid="", number=2, name=lambda z: f"b{z}")
    found = find_series(sorted(tmp_path.iterdir()))
    assert [(series.number, len(series.slices)) for series in found.series] == [("1", 4), ("2", 4)]


def test_archive_is_read_without_leaving_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hounsfield = write_series(tmp_path / "series")
    archive = tmp_path / "series.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for path in sorted((tmp_path / "series").iterdir()):
            content.write(path, f"export/{path.name}")
        content.writestr("__MACOSX/export/._1.dcm", b"x")
    with zipfile.ZipFile(archive) as content:
        found = find_series_in_archive(archive, content.infolist())
    assert found.ignored == {"hidden file": 1}
    scan = series_scan(found.series[0])
    assert (scan.archive, scan.files[0]) == (str(archive), "export/3.dcm")
    assert series_grid(scan).shape_zyx == (4, 5, 6)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    np.testing.assert_array_equal(read_series(scan)[0], hounsfield)
    assert list(scratch.iterdir()) == []
    archive.unlink()
    for read in (read_series, series_grid):
        with pytest.raises(CaseError, match="series.zip"):
            read(scan)


def shifted(*, slice_: int, by: tuple[float, float, float]) -> Change:
    def change(dataset, z):
        if z == slice_:
            position = np.add(dataset.ImagePositionPatient, by)
            dataset.ImagePositionPatient = [float(v) for v in position]

    return change


def set_to(*slices: int, **elements) -> Change:
    """In these slices, or in all; None removes an element."""

    def change(dataset, z):
        for key, value in elements.items() if z in slices or not slices else ():
            delattr(dataset, key) if value is None else setattr(dataset, key, value)

    return change


def pairs(**elements) -> Change:
    """Two slices at each position, the second with these elements."""

    def change(dataset, z):
        dataset.ImagePositionPatient = [-10.0, 20.0, 30.0 + 2 * (z // 2)]
        set_to(*([] if z % 2 else [-1]), **elements)(dataset, z)

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (shifted(slice_=3, by=(0, 0, 2)), r"uneven: 2 to 4 mm.*a slice may be missing there"),
        (shifted(slice_=1, by=(0, 0, 0.03)), "uneven: 1.97 to 2.03 mm"),
        (shifted(slice_=1, by=(0.5, 0, 0)), "10.dcm is 0.5 mm"),
        (pairs(EchoTime=30), "4 slices at only 2 positions.*EchoTime 30.0 and none"),
        (
            pairs(DiffusionBValue=800.0),
            "4 slices at only 2 positions.*DiffusionBValue 800.0 and none",
        ),
        (pairs(), "4 slices at only 2 positions"),
        (set_to(1, PixelSpacing=[0.9, 0.7]), "several pixel spacings"),
        (set_to(1, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "several orientations"),
        (set_to(1, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "two unit vectors"),
        (set_to(ImageOrientationPatient=None), "ImageOrientationPatient"),
        (set_to(1, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]), "10.dcm is a mosaic"),
    ],
)
def test_slices_that_make_no_grid_are_refused(tmp_path: Path, change: Change, reason: str) -> None:
    write_series(tmp_path, change=change)
    with pytest.raises(CaseError, match=reason) as caught:
        scan_of(tmp_path)
    assert str(caught.value).startswith("series 3, axial, 4 files: ")
    assert "\n" not in str(caught.value)


def test_rounded_positions_and_cosines_are_a_grid(tmp_path: Path) -> None:
    def change(dataset, z):  # a hundredth of a millimetre, three decimals
        dataset.ImagePositionPatient = [round(float(v), 2) for v in dataset.ImagePositionPatient]
        dataset.ImageOrientationPatient = [0.866, 0.5, 0, 0, 0, -1]

    cosines = (3**0.5 / 2, 0.5, 0, 0, 0, -1)
    write_series(tmp_path, slices=9, cosines=cosines, change=change)
    last = series_grid(scan_of(tmp_path)).affine[:3] @ (0, 0, 8, 1)
    expected = np.add((-10, 20, 30), 8 * 2 * np.cross(cosines[:3], cosines[3:]))
    np.testing.assert_allclose(last, expected * (-1, -1, 1), atol=0.01)


def test_a_single_slice_has_its_thickness(tmp_path: Path) -> None:
    hounsfield = write_series(tmp_path, slices=1)
    voxels, stack = read_series(scan_of(tmp_path))
    np.testing.assert_array_equal(voxels, hounsfield)
    assert stack.spacing_zyx[0] == pytest.approx(2)
    assert "its thickness of 2 mm" in stack.notes[0]


@pytest.mark.parametrize("kept", [0, 60, 140, 400, 0.97])
def test_files_that_are_cut_off(tmp_path: Path, kept: float) -> None:
    write_series(tmp_path)
    path = tmp_path / "6.dcm"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content)) if 0 < kept < 1 else int(kept)])
    found = find_series(sorted(tmp_path.iterdir()))
    if kept == 0.97:  # its header says where it belongs
        with pytest.raises(CaseError, match="6.dcm is cut off within its pixels"):
            series_scan(found.series[0])
    else:
        assert list(found.broken) == [str(path)]


def test_cut_off_or_changed_after_it_was_found(tmp_path: Path) -> None:
    write_series(tmp_path)
    scan = scan_of(tmp_path)
    path = Path(scan.files[1])
    content = path.read_bytes()
    path.write_bytes(content[:-8])
    with pytest.raises(CaseError, match="cut off within its pixels"):
        read_series(scan)
    path.unlink()
    with pytest.raises(CaseError, match="cannot be opened"):
        read_series(scan)
    path.write_bytes(content)
    with pytest.raises(CaseError, match="have changed"):
        read_series(Scan(files=scan.files[::-1], ending=".dcm", series="series 3"))


def test_damaged_compressed_pixels(tmp_path: Path) -> None:
    def change(dataset, z):
        dataset.compress(RLELossless, generate_instance_uid=False)

    hounsfield = write_series(tmp_path, change=change, shape=(32, 32))
    scan = scan_of(tmp_path)
    np.testing.assert_array_equal(read_series(scan)[0], hounsfield)
    path = Path(scan.files[1])
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(CaseError, match="cut off within its pixels"):
        read_series(scan)
    start = content.index(b"\xe0\x7f\x10\x00") + 12  # behind the tag, the table of frames
    start += 8 + int.from_bytes(content[start + 4 : start + 8], "little") + 8
    path.write_bytes(content[:start] + b"\xff" * 64 + content[start + 64 :])  # not RLE's header
    with pytest.raises(CaseError, match="cannot be decoded"):
        read_series(scan)
