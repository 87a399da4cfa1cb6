"""RT structure sets: contours by hand, and masks found again by matplotlib's point-in-polygon in ITK's space."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from matplotlib.path import Path as Polygon
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom import structure_set
from dinomed3d.inference.dicom.contours import filled, plane_contours
from dinomed3d.inference.dicom.derived import MadeBy, made_at, series_number
from dinomed3d.inference.dicom.structure_set import write_structure_set
from tests.dinomed3d.inference.dicom.dicom_series import write_series

LABELS = {"background": 0, "Liver": 1, "kidney_left": 2, "Zyste ł": 3}
MADE_BY = MadeBy(algorithm="nnUNetTrainer 3d_fullres", version="0123abc")
AXIAL, CORONAL, SAGITTAL = (1, 0, 0, 0, 1, 0), (1, 0, 0, 0, 0, -1), (0, 1, 0, 0, 0, -1)
OBLIQUE = (0.8, 0.6, 0, 0, 0, -1)


def series(
    folder: Path,
    cosines: Any = AXIAL,
    shape: Any = (40, 50),
    slices: int = 8,
    *,
    spacing: Any = (2.5, 0.75, 0.5),
    origin: Any = (10, -20, 30),
    uid: str = "1.2.3.4",
) -> Scan:
    def change(header: Any, z: int) -> None:
        header.SOPInstanceUID = f"1.2.3.4.{z + 1}"
        header.FrameOfReferenceUID, header.PatientName = "1.2.3.5", "Test^Case"
        header.PositionReferenceIndicator = "SN"

    write_series(
        folder, slices=slices, shape=shape, spacing=spacing, cosines=cosines, origin=origin,
        uid=uid, name=lambda z: f"{z}.dcm", change=change,
    )  # fmt: skip
    return Scan(files=tuple(str(folder / f"{z}.dcm") for z in range(slices)), ending=".dcm")


def write(scan: Scan, mask: NDArray[Any], **more: Any) -> Any:
    path = Path(scan.files[0]).parents[1] / "01.rtstruct.dcm"
    write_structure_set(mask, scan, path, **{"labels": LABELS, "made_by": MADE_BY, **more})
    return pydicom.dcmread(path)


def points(contour: Any) -> NDArray[np.float64]:
    return np.array(contour.ContourData, dtype=float).reshape(-1, 3)


def image_of(scan: Scan) -> sitk.Image:
    return sitk.ReadImage(scan.files)


def found_again(content: Any, number: int, image: sitk.Image) -> NDArray[np.bool_]:
    """(Z, Y, X): where the contours of one region are, by ITK's coordinates and matplotlib's polygons."""
    mask = np.zeros(image.GetSize()[::-1], bool)
    y, x = np.mgrid[: mask.shape[1], : mask.shape[2]]
    centres = np.stack([x.ravel(), y.ravel()], axis=1)
    for contour in content.ROIContourSequence[number].ContourSequence:
        index = np.array(
            [image.TransformPhysicalPointToContinuousIndex(p.tolist()) for p in points(contour)]
        )
        z = round(index[0, 2])
        np.testing.assert_allclose(index[:, 2], z, atol=1e-3)  # the polygon is planar
        inside = Polygon(np.r_[index[:, :2], index[:1, :2]], closed=True).contains_points(centres)
        mask[z] |= inside.reshape(mask.shape[1:])
    return mask


def lumpy(shape: tuple[int, int, int] = (8, 40, 50)) -> NDArray[np.uint8]:
    """A ball with a hole and an island in it, and a second label; no flip leaves it equal."""
    z, y, x = np.mgrid[: shape[0], : shape[1], : shape[2]]
    distance = np.sqrt((2.5 * (z - 3.2)) ** 2 + (0.75 * (y - 17.3)) ** 2 + (0.5 * (x - 27.4)) ** 2)
    mask = np.zeros(shape, np.uint8)
    mask[(distance < 11) & ~((distance > 3) & (distance < 6))] = 1
    mask[2:, 1:8, 3:9] = 2
    mask[0, 0, -1] = mask[-1, -1, 0] = mask[3, 0, 0] = mask[3, 1, 1] = (
        2  # corners; voxels that touch by a corner
    )
    return mask


def test_a_square_by_hand(tmp_path):
    """2 x 2 voxels from row 3, column 5 on: half a voxel around their centres, corners cut half way."""
    mask = np.zeros((8, 40, 50), np.uint8)
    mask[4, 3:5, 5:7] = 3
    content = write(series(tmp_path / "s", OBLIQUE), mask)
    (contour,) = content.ROIContourSequence[0].ContourSequence
    # columns run along (0.8, 0.6, 0) by 0.5 mm, rows along (0, 0, -1) by 0.75, slices along (-0.6, 0.8, 0) by 2.5
    corner = np.array([10 - 0.6 * 10, -20 + 0.8 * 10, 30])
    places = [(4.5, 3), (4.5, 4), (5, 4.5), (6, 4.5), (6.5, 4), (6.5, 3), (6, 2.5), (5, 2.5)]
    by_hand = [corner + (0.4 * x, 0.3 * x, -0.75 * y) for x, y in places]
    ours = points(contour)
    start = int(np.argmin(np.linalg.norm(ours - by_hand[0], axis=1)))
    ours = np.roll(ours, -start, axis=0)
    if not np.allclose(ours[1], by_hand[1], atol=1e-3):
        ours = np.roll(ours[::-1], 1, axis=0)
    np.testing.assert_allclose(ours, by_hand, atol=1e-4)
    assert contour.ContourGeometricType == "CLOSED_PLANAR" and contour.NumberOfContourPoints == 8
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert content.ROIContourSequence[0].ROIDisplayColor == [204, 121, 167]  # the third colour
    assert [roi.ROIName for roi in content.StructureSetROISequence] == ["Zyste ł"]
    assert content.SpecificCharacterSet == "ISO_IR 192"  # no header of the series names one


def test_small_voxels_have_more_digits_and_numbers_that_are_too_long_are_refused(tmp_path):
    mask = np.zeros((2, 9, 9), np.uint8)
    mask[1, 3:5, 5:7] = 1
    for origin in ((10, -20, 30), (-123456789, -20, 30)):
        scan = series(
            tmp_path / str(origin[0]),
            shape=(9, 9),
            slices=2,
            spacing=(1, 0.04, 0.005),
            origin=origin,
        )
        if origin[0] < 0:  # 17 characters with six digits behind the point
            with pytest.raises(CaseError, match="too long"):
                write(scan, mask)
            break
        (contour,) = write(scan, mask).ROIContourSequence[0].ContourSequence
        halves = (points(contour)[:, :2] - origin[:2]) / (0.005, 0.04) * 2
        np.testing.assert_allclose(
            halves, halves.round(), atol=2e-3
        )  # half voxels, to a thousandth


@pytest.mark.parametrize("cosines", (AXIAL, CORONAL, SAGITTAL, OBLIQUE))
def test_masks_are_found_again_in_space(tmp_path, cosines):
    scan, mask = series(tmp_path / "s", cosines), lumpy()
    content, image = write(scan, mask), image_of(scan)
    # ITK sorts nothing here: files are in the order of their positions
    for number in (0, 1):
        found, true = found_again(content, number, image), mask == number + 1
        assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.98
        assert found.sum() == pytest.approx(true.sum(), rel=0.02)
        # keyholes: whoever combines contours by exclusive or gets the same
        assert np.array_equal(found, true)


def test_what_it_says_and_refers_to(tmp_path):
    scan, mask = series(tmp_path / "s"), lumpy()
    content = write(scan, mask)
    first = content.StructureSetROISequence[0]
    assert (first.ROINumber, first.ROIName, first.ROIGenerationAlgorithm) == (
        1,
        "Liver",
        "AUTOMATIC",
    )
    assert first.ReferencedFrameOfReferenceUID == content.FrameOfReferenceUID == "1.2.3.5"
    assert [o.ReferencedROINumber for o in content.RTROIObservationsSequence] == [1, 2]
    assert [c.ReferencedROINumber for c in content.ROIContourSequence] == [1, 2]
    (frame,) = content.ReferencedFrameOfReferenceSequence
    (of_series,) = frame.RTReferencedStudySequence[0].RTReferencedSeriesSequence
    assert of_series.SeriesInstanceUID == "1.2.3.4"
    images = [i.ReferencedSOPInstanceUID for i in of_series.ContourImageSequence]
    assert images == [f"1.2.3.4.{z}" for z in range(1, 9)]
    assert (content.PatientName, content.StudyInstanceUID) == ("Test^Case", "1.2.3")
    assert content.ApprovalStatus == "UNAPPROVED" and content.PositionReferenceIndicator == "SN"
    assert content.Modality == "RTSTRUCT" and 0 < len(content.StructureSetLabel) <= 16
    assert content.file_meta.TransferSyntaxUID == pydicom.uid.ImplicitVRLittleEndian
    path = Path(scan.files[0]).parents[1] / "01.rtstruct.dcm"
    before = path.read_bytes()
    write(scan, mask)
    assert path.read_bytes() == before
    assert (content.StructureSetDate, content.SeriesTime) == ("19000101", "000000")
    when = datetime(2026, 3, 1, 9, 5, 7)
    again = write(scan, mask, made_by=replace(MADE_BY, corrected=when))
    for moment in ("Series", "StructureSet"):
        assert (again[f"{moment}Date"].value, again[f"{moment}Time"].value) == (
            "20260301",
            "090507",
        )
    assert again.StructureSetROISequence[0].ROIGenerationAlgorithm == "SEMIAUTOMATIC"
    assert again.SOPInstanceUID != content.SOPInstanceUID
    other = write(scan, np.roll(mask, 1, axis=2))
    assert other.SOPInstanceUID != content.SOPInstanceUID
    assert other.SeriesInstanceUID == content.SeriesInstanceUID != "1.2.3.4"
    of_another = write(series(tmp_path / "t", uid="1.2.3.6"), mask)  # another series of the study
    assert of_another.SeriesInstanceUID != content.SeriesInstanceUID


def test_dates_and_numbers_of_series():
    header = pydicom.Dataset()
    for year, moment in enumerate(("Study", "Series", "Acquisition", "Content"), start=1):
        header.add_new(f"{moment}Date", "DA", f"200{year}0101")
        assert made_at(header, MADE_BY)[0] == f"200{year}0101"  # the latest that is there
    assert series_number(header, 2000) == 2000
    for number, made in ((-5, 2000), (12, 2012), (2**31 - 1, 2000 + 483647)):
        header.SeriesNumber = number
        assert series_number(header, 2000) == made  # at most 2**31 - 1


def test_regions_overlap_and_empty_masks_have_no_contours(tmp_path):
    scan, mask = series(tmp_path / "s", shape=(9, 9)), np.zeros((8, 9, 9), np.uint8)
    mask[2, 2:6, 2:6] = 1
    mask[2, 3:5, 3:5] = 2
    mask[5] = 1  # a slice without background
    regions = {"background": 0, "whole": [1, 2], "core": [2]}
    content, image = write(scan, mask, labels=regions), image_of(scan)
    assert np.array_equal(found_again(content, 0, image), mask > 0)
    assert np.array_equal(found_again(content, 1, image), mask == 2)
    content = write(scan, np.zeros_like(mask))
    assert len(content.StructureSetROISequence) == 3
    assert not any("ContourSequence" in item for item in content.ROIContourSequence)
    made = write_structure_set(mask, scan, tmp_path / "x.dcm", labels=LABELS, made_by=MADE_BY)
    assert made == ["Zyste ł"]  # what has no voxels


def off_plane(self, points):
    return TEXT(replace(self, corner=self.corner + (0, 0, 1)), points)


def renamed(number, name, *rest):
    return ROI(number, name[::-1], *rest)


TEXT, ROI = structure_set._Plane.text, structure_set._roi


@pytest.mark.parametrize(
    ("place", "name", "wrong"),
    [
        (
            structure_set,
            "plane_contours",
            lambda p: [ring + (0.6, 0) for ring in plane_contours(p)],
        ),
        (structure_set, "plane_contours", lambda p: [ring + (90, 0) for ring in plane_contours(p)]),
        (structure_set, "plane_contours", lambda p: []),
        (structure_set._Plane, "text", off_plane),
        (structure_set, "_roi", renamed),
    ],
    ids=["moved", "outside", "lost", "off its slice", "renamed"],
)
def test_a_file_that_differs_from_the_mask_is_not_kept(tmp_path, monkeypatch, place, name, wrong):
    scan = series(tmp_path / "s")
    monkeypatch.setattr(place, name, wrong)
    with pytest.raises(CaseError, match="differs when read back"):
        write(scan, lumpy())
    assert not list(tmp_path.glob("*.dcm*"))


def test_holes_are_connected_to_what_lies_next_to_them():
    """A channel that ran through another hole would be none of the piece's: it begins at the nearest outline."""
    plane = np.ones((9, 6), bool)
    plane[2:7, 1] = plane[2:7, 3] = plane[1, 4] = plane[2, 4] = (
        False  # the right hole is seen first
    )
    (ring,) = plane_contours(plane)
    ends = np.roll(ring, -1, axis=0)
    in_rows = ring[:, 1] * 4 % 2 == 1  # an outline has its corners at whole and half voxels
    lengths = np.abs(ends - ring)[in_rows & (ring[:, 1] == ends[:, 1]), 0]
    assert len(lengths) == 4 and lengths.max() <= 1.5


@pytest.mark.parametrize("move", [(-3, 0), (0, -3), (3, 0), (0, 3)])
def test_polygons_that_leave_their_plane_fill_nothing(move):
    square = np.array([(1.5, 1.5), (3.5, 1.5), (3.5, 3.5), (1.5, 3.5)])
    assert filled([square], (5, 5)).sum() == 4
    assert filled([square + move], (5, 5)) is None


def test_outlines_of_any_plane_fill_it_again():
    """Pieces within holes within pieces, corners that touch, single voxels, lines, borders."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        plane = rng.random(rng.integers(1, 24, 2)) < rng.random()
        polygons = plane_contours(plane)
        assert np.array_equal(filled(polygons, plane.shape), plane)
        moved = [p + rng.uniform(-1e-4, 1e-4, p.shape) for p in polygons]  # as rounding does
        assert np.array_equal(filled(moved, plane.shape), plane)
        for polygon in polygons:  # closed, and one piece of voxels each
            assert (polygon[0] != polygon[-1]).any()
        alone = [filled([polygon], plane.shape) for polygon in polygons]
        assert not polygons or np.array_equal(np.sum(alone, axis=0), plane.astype(int))
