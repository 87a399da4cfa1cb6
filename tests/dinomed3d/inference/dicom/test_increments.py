"""Series of two slice increments: predicted on even slices, the mask put back on the original ones."""

import html
import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.dicom.increments import finest_of_two, on_even_slices
from dinomed3d.inference.dicom.volume import read_series
from dinomed3d.inference.io.dicom import original_slices, read_grid
from tests.dinomed3d.inference.dicom.dicom_series import write_series
from tests.dinomed3d.inference.dicom.test_volume import scan_of
from tests.dinomed3d.inference.models.write_model import write_model


@pytest.mark.parametrize(
    ("gaps", "finest"),
    [
        ([2.5] * 6 + [5] * 5, 2.5),
        ([5] * 5 + [2.5] * 6, 2.5),
        ([3] * 4 + [7] * 4, 3),
        ([2.5] * 4 + [3.75] + [5] * 4, 2.5),  # half of each where they meet
        ([5] * 3 + [2.5] * 9 + [5] * 3, 2.5),
        ([2.502, 2.498, 2.5, 5.003, 5, 4.997], 2.5),
        ([2] * 5 + [4] + [2] * 5, None),  # a lost slice
        ([2] * 9 + [4], None),
        ([2] * 4 + [4] * 2 + [2] * 4, None),  # two lost slices
        ([2] * 6 + [4] * 4 + [8] + [4] * 4, None),  # one lost of two increments
        ([2] * 4 + [3] + [2] * 4 + [4] * 4, None),
        ([1] * 4 + [2] * 4 + [4] * 4, None),
        ([2, 4] * 5, None),
        ([2] * 4 + [3] * 2 + [4] * 4, None),
        ([1] * 4 + [20] * 4, None),
    ],
)
def test_which_gaps_are_two_increments(gaps, finest):
    found = finest_of_two(np.array(gaps, float), None, tolerance=0.01, tolerance_mm=0.01)
    assert found == (None if finest is None else pytest.approx(finest))


def test_images_whose_numbers_are_missing_are_lost():
    gaps = np.array([2.0] * 4 + [4.0] * 4)
    for numbers, finest in ((range(1, 10), 2), ([9, 8, 7, 6, 5, 3, 1, -1, -3], None)):
        assert finest_of_two(gaps, numbers, tolerance=0.01, tolerance_mm=0.01) == finest


@pytest.mark.parametrize(
    ("heights", "numbers", "tells"),
    [
        ([0, 2, 4, 6, 8, 12, 16, 20, 24], [1, 2, 3, 4, 5, 7, 9, 11, 13], "4 slices are missing"),
        ([0, 2, 4.3, 6, 8], [1, 2, 3, 4, 5], "; resample"),  # irregular, and none is missing
        ([0, 2, 4, 8, 10], [1, 2, 3, 4, 5], "a slice may be missing"),
    ],
)
def test_slices_whose_numbers_are_missing_are_to_be_exported_again(
    tmp_path, heights, numbers, tells
):
    def place(dataset, z):
        dataset.ImagePositionPatient = [0, 0, heights[z]]
        dataset.InstanceNumber = numbers[z]

    write_series(tmp_path, slices=len(heights), change=place, name=lambda z: f"{z}.dcm")
    with pytest.raises(CaseError, match=tells):
        scan_of(tmp_path)


def test_increments_of_a_similar_size_with_all_numbers_are_two():
    gaps = np.array([2.0] * 4 + [2.5] * 4)
    assert finest_of_two(gaps, range(1, 10), tolerance=0.01, tolerance_mm=0.01) == 2


def test_values_between_slices_by_hand():
    voxels = np.array([0, 10, 20, 41], np.int16).reshape(4, 1, 1)
    even = on_even_slices(voxels, [0, 1, 3, 5], 6)
    assert even.dtype == np.int16 and even.ravel().tolist() == [0, 10, 15, 20, 30, 41]
    even = on_even_slices(voxels.astype(np.float32), [0, 1, 2.5, 4.4], 6)
    by_hand = [0, 10, 10 + 10 / 1.5, 20 + 21 * 0.5 / 1.9, 20 + 21 * 1.5 / 1.9, 41]
    np.testing.assert_allclose(even.ravel(), by_hand)


def coarse_above(dataset, z):
    """2 mm up to slice 4, then 4 mm, along any normal."""
    step = np.cross(dataset.ImageOrientationPatient[:3], dataset.ImageOrientationPatient[3:])
    position = np.add(dataset.ImagePositionPatient, step * 2.0 * max(0, z - 4))
    dataset.ImagePositionPatient = [round(float(v), 6) for v in position]


def test_a_series_on_even_slices_and_on_its_own(tmp_path):
    stored = write_series(tmp_path, slices=8, cosines=(0.8, 0.6, 0, 0, 0, -1), change=coarse_above)
    scan = scan_of(tmp_path)
    voxels, stack = read_series(scan)
    assert stack.places == (0, 1, 2, 3, 4, 6, 8, 10) and len(voxels) == 11
    grid = read_grid(scan)
    assert np.array_equal(voxels[grid.slices], stored)
    assert np.array_equal(voxels[5] * 2, stored[4] + stored[5])
    for plane, file in zip(grid.slices, scan.files, strict=True):
        position = pydicom.dcmread(file).ImagePositionPatient
        np.testing.assert_allclose(
            grid.matrix[:3] @ (0, 0, plane, 1), np.multiply(position, (-1, -1, 1)), atol=1e-4
        )
    assert replace(grid, slice_places=(0, 1.4, 2.6)).slices == [0, 1, 3]
    # the mask of its own slices lies where ITK, which knows even slices alone, places the series
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(scan.files)
    image, own = reader.Execute(), original_slices(grid)
    assert own.shape_zyx == image.GetSize()[::-1]
    np.testing.assert_allclose(own.spacing_mm, image.GetSpacing()[::-1], rtol=1e-5)
    corner = image.TransformIndexToPhysicalPoint((5, 4, 7))
    np.testing.assert_allclose(
        own.matrix[:3] @ (5, 4, 7, 1), np.multiply(corner, (-1, -1, 1)), atol=1e-3
    )


def test_shifted_slices_of_two_increments_are_refused(tmp_path):
    def tilted(dataset, z):
        coarse_above(dataset, z)
        dataset.ImagePositionPatient[1] += 0.1 * dataset.ImagePositionPatient[2]

    write_series(tmp_path, slices=8, change=tilted)
    with pytest.raises(CaseError, match="gantry tilt"):
        scan_of(tmp_path)


def test_the_head_of_the_cases(shared, tmp_path):
    source = shared / "cases" / "medical" / "two_increments"
    model = write_model(tmp_path, mirroring=None)
    spec = PredictSpec(
        source=str(source), out=str(tmp_path / "out"), model=str(model), engine="threads", device="cpu",
        dicom_seg=True, dicom_rtstruct=True, step_size=1.0,
    )  # fmt: skip
    assert predict(spec, lambda event: None).done == ("head",)
    out = Path(spec.out)
    record = json.loads((out / "head.json").read_text())
    assert any("2.5 and 5 mm" in note and "17 even slices" in note for note in record["notes"])
    assert set(record["files"]) == {"head.slices.nii.gz", "head.seg.dcm", "head.png"}
    even, own = (
        np.asarray(nib.load(out / f"head{ending}").dataobj).T
        for ending in (".nii.gz", ".slices.nii.gz")
    )
    planes = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16]
    assert own.shape == (12, 32, 32) and own.any() and np.array_equal(own, even[planes])
    content = pydicom.dcmread(out / "head.seg.dcm")
    heights = {
        round(float(group.PlanePositionSequence[0].ImagePositionPatient[2]), 3)
        for group in content.PerFrameFunctionalGroupsSequence
    }
    assert heights <= {2.5 * plane for plane in planes} and max(heights) > 17
    measures = content.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert "SpacingBetweenSlices" not in measures
    contours = pydicom.dcmread(out / record["rtstruct"]["file"]).ROIContourSequence
    assert {
        round(float(c.ContourData[2]), 3) for i in contours for c in i.ContourSequence
    } == heights
    assert not predict(spec, lambda event: None).failed  # the same again keeps it
    check_later_structure_sets(spec, out / "head.rtstruct.dcm")


def check_later_structure_sets(spec, path):
    """Of a mask that was corrected, and one that is gone: made again, and nothing is predicted for it."""
    image = nib.load(path.with_name("head.nii.gz"))
    old_preview = path.with_name("head.png").read_bytes()
    values = np.zeros(image.shape, np.uint8)
    values[4:9, 5:8, 8:13] = 1  # even slices 8 to 12: original ones 7, 8 and 9
    nib.save(nib.Nifti1Image(values, None, image.header), path.with_name("head.nii.gz"))
    events = []
    assert predict(spec, events.append).done
    assert [e.work.completed for e in events if hasattr(e, "work")] == [["head"]] and len(
        events
    ) == 1
    found = pydicom.dcmread(path)
    (roi,) = found.StructureSetROISequence
    assert roi.ROIGenerationAlgorithm == "SEMIAUTOMATIC"
    heights = [float(c.ContourData[2]) for c in found.ROIContourSequence[0].ContourSequence]
    assert heights == pytest.approx([20, 25, 30])
    when = datetime.fromtimestamp(path.with_name("head.nii.gz").stat().st_mtime)
    assert found.StructureSetTime == f"{when:%H%M%S}"
    record = json.loads(path.with_name("head.json").read_text())
    again = pydicom.dcmread(path.with_name("head.seg.dcm"))
    (segment,) = again.SegmentSequence
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC" and again.ContentTime == f"{when:%H%M%S}"
    frames = again.PerFrameFunctionalGroupsSequence
    heights = {float(f.PlanePositionSequence[0].ImagePositionPatient[2]) for f in frames}
    assert heights == {20, 25, 30} and len(frames) == 3
    assert again.pixel_array.sum() == values[4:9, 5:8, 8:13:2].sum()
    flag = html.unescape(path.with_name("report.html").read_text(encoding="utf-8"))
    assert "corrected by hand since; certainty and other flags are those of the prediction<" in flag
    assert record["files"].count("head.seg.dcm") == 1 and len(record["result_notes"]) == 1
    assert np.array_equal(own_slices(path), values.T[[*range(7), 8, 10, 12, 14, 16]])
    assert record["labels"]["a"]["voxels"] == values.sum()
    assert path.with_name("head.png").read_bytes() != old_preview
    path.unlink()
    assert predict(spec, events.append).done and pydicom.dcmread(path) == found
    check_a_correction_without_segmentation(spec, path, values, image.header)


def own_slices(path):
    return np.asarray(nib.load(path.with_name("head.slices.nii.gz")).dataobj).T


def check_a_correction_without_segmentation(spec, path, values, header):
    """A value without a label: the segmentation of the first correction stays, and a flag says so."""
    before = path.with_name("head.seg.dcm").read_bytes()
    drawn = nib.Nifti1Image(
        np.full_like(own_slices(path).T, 7),
        None,
        nib.load(path.with_name("head.slices.nii.gz")).header,
    )
    nib.save(drawn, path.with_name("head.slices.nii.gz"))  # someone has drawn into that one as well
    nib.save(nib.Nifti1Image(values * 99, None, header), path.with_name("head.nii.gz"))
    assert predict(spec, lambda event: None).done
    record = json.loads(path.with_name("head.json").read_text())
    assert any("no DICOM segmentation" in flag for flag in record["flags"])
    assert path.with_name("head.seg.dcm").read_bytes() == before
    text = html.unescape(path.with_name("report.html").read_text(encoding="utf-8"))
    assert "as of an earlier correction: RT structure set and DICOM segmentation<" in text
    assert own_slices(path).max() == 99
    assert any("kept as head.slices.edited1.nii.gz" in flag for flag in record["flags"])
    assert np.asarray(nib.load(path.with_name("head.slices.edited1.nii.gz")).dataobj).min() == 7
    nib.save(nib.Nifti1Image(values, None, header), path.with_name("head.nii.gz"))
    assert predict(spec, lambda event: None).done
    record = json.loads(path.with_name("head.json").read_text())
    assert not any("no DICOM segmentation" in flag for flag in record["flags"])
    assert (
        record["seg"]["mask_sha256"]
        and len(pydicom.dcmread(path.with_name("head.seg.dcm")).SegmentSequence) == 1
    )
