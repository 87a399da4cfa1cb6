"""Multi-frame DICOM: frames are the slices of a series, read as highdicom reads them."""

import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.dicom import frames
from dinomed3d.inference.dicom.derived import MadeBy
from dinomed3d.inference.dicom.dicom_seg import write_segmentation
from dinomed3d.inference.dicom.structure_set import write_structure_set
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.io.image import read_case, read_grid
from tests.dinomed3d.inference.dicom.dicom_series import write_series

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    highdicom = pytest.importorskip("highdicom", reason="the extra dinomed3d[dicom]")


def item(**elements):
    made = Dataset()
    for name, value in elements.items():
        setattr(made, name, value)
    return [made]


def write_frames(path, groups, *, change=lambda d: None, syntax=ExplicitVRLittleEndian, **shared):
    """An enhanced MR of 16 x 18 pixels that count on from frame to frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = syntax
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.SeriesInstanceUID, made.SeriesNumber, made.Modality = "1.2.3", 5, "MR"
    made.FrameOfReferenceUID = "1.2.4"
    made.Rows, made.Columns, made.SamplesPerPixel = 16, 18, 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 0
    made.NumberOfFrames = len(groups)
    orientation = item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])
    measures = item(PixelSpacing=[0.5, 0.75], SliceThickness=2)
    common = {"PlaneOrientationSequence": orientation, "PixelMeasuresSequence": measures}
    made.SharedFunctionalGroupsSequence = item(**common | shared)
    made.PerFrameFunctionalGroupsSequence = [item(**group)[0] for group in groups]
    pixels = np.arange(16 * 18 * len(groups), dtype=np.uint16).reshape(-1, 16, 18)
    made.PixelData = pixels.tobytes()
    if syntax == RLELossless:
        made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made.compress(RLELossless, generate_instance_uid=False)
    change(made)
    made.save_as(path, enforce_file_format=True)
    return pixels.astype(int)


def at(z, **groups):
    return {"PlanePositionSequence": item(ImagePositionPatient=[5, 6, float(z)]), **groups}


def content(**elements):
    return {"FrameContentSequence": item(**elements)}


def only(folder):
    (case,) = find_cases(folder, channels=("MR",)).cases
    return case


def as_highdicom(path):
    """Slices from the lower end up, as we have them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = highdicom.imread(path).get_volume()
    return volume.array[::-1] if volume.affine[2, 0] < 0 else volume.array


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless])
def test_frames_are_slices_in_the_order_of_their_positions(syntax, tmp_path):
    path = tmp_path / "scan" / "a.dcm"
    slope = {
        "PixelValueTransformationSequence": item(
            RescaleSlope=2, RescaleIntercept=-1, RescaleType="US"
        )
    }
    stored = write_frames(path, [at(z) for z in (4, 0, 2)], syntax=syntax, **slope)
    case = only(tmp_path)
    assert case.id == "scan" and case.scans[0].frames == (2, 3, 1)
    volume = read_case(case, ("MR",))
    assert np.array_equal(volume.channels[0], 2 * stored[[1, 2, 0]] - 1)
    assert np.array_equal(volume.channels[0], as_highdicom(path))
    assert volume.grid == read_grid(case.scans[0])
    assert volume.grid.spacing_mm == (2, 0.5, 0.75)
    np.testing.assert_allclose(volume.grid.matrix[:3, 3], (-5, -6, 0))


def test_frames_that_are_shown_inverted_have_the_values_that_are_stored(tmp_path):
    def change(made):
        made.PhotometricInterpretation = "MONOCHROME1"

    stored = write_frames(tmp_path / "a.dcm", [at(z) for z in (0, 2)], change=change)
    volume = read_case(only(tmp_path), ("MR",))
    assert np.array_equal(volume.channels[0], stored)
    assert "MONOCHROME1" in volume.notes[0]


def test_a_segmentation_refers_to_the_frames(tmp_path):
    path = tmp_path / "scan" / "a.dcm"
    more = setting(StudyInstanceUID="1.9", PatientSex="X")
    write_frames(path, [at(z) for z in (4, 0, 2)], change=more)
    scan = only(tmp_path).scans[0]
    mask = np.zeros((3, 16, 18), np.uint8)
    mask[0, 2:5, 3], mask[1, 7, 4:9], mask[2, 1, 1] = 1, 2, 1
    for number, labels in enumerate((mask, 0 * mask)):
        made = tmp_path / f"{number}.seg.dcm"
        write_segmentation(
            labels, scan, made, labels={"a": 1, "b": 2}, made_by=MadeBy(algorithm="x", version="1")
        )
    segmentation = pydicom.dcmread(tmp_path / "0.seg.dcm")
    found = np.zeros_like(mask)
    for group, frame in zip(
        segmentation.PerFrameFunctionalGroupsSequence, segmentation.pixel_array, strict=True
    ):
        label = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        z = {1: 2, 2: 0, 3: 1}[int(source.ReferencedFrameNumber)]
        assert group.PlanePositionSequence[0].ImagePositionPatient[2] == 2 * z
        found[z][frame > 0] = label
    assert np.array_equal(found, mask)
    made_by = MadeBy(algorithm="x", version="1")
    write_structure_set(mask, scan, made, labels={"a": 1, "b": 2}, made_by=made_by)
    structures = pydicom.dcmread(made)
    (frame_of_reference,) = structures.ReferencedFrameOfReferenceSequence
    (study,) = frame_of_reference.RTReferencedStudySequence
    assert len(study.RTReferencedSeriesSequence[0].ContourImageSequence) == 1  # one object
    contours = structures.ROIContourSequence[0].ContourSequence
    frames = [c.ContourImageSequence[0].ReferencedFrameNumber for c in contours]
    assert frames == [2, 1] and [c.ContourData[2] for c in contours] == [0, 4]
    write_frames(path, [at(z, **content(StackID=s)) for s in "ab" for z in (0, 2)], change=more)
    scan = find_cases(tmp_path / "scan", channels=("MR",)).cases[0].scans[0]
    with pytest.raises(CaseError, match="holds several"):
        write_segmentation(mask[:2], scan, made, labels={"a": 1, "b": 2}, made_by=made_by)


@pytest.mark.parametrize("shared", ["position", "all", "nothing"])
def test_a_segmentation_of_frames_with_their_own_geometry(shared, tmp_path):
    """Some scanners repeat orientation and measures in each frame; others state a wrong distance for all."""
    own = {
        "PlaneOrientationSequence": item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0]),
        "PixelMeasuresSequence": item(PixelSpacing=[0.5, 0.75], SpacingBetweenSlices=0.2),
    }

    def change(made):
        made.StudyInstanceUID, made.PatientID = "1.9", "p"
        if shared == "nothing":
            del made.SharedFunctionalGroupsSequence
        elif shared == "position":
            del made.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
            del made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence

    frames = [at(z, **({} if shared == "all" else own)) for z in (4, 0, 2)]
    write_frames(tmp_path / "scan" / "a.dcm", frames, change=change, **own)
    mask = np.zeros((3, 16, 18), np.uint8)
    mask[0, 2:5, 3] = mask[2, 1, 1] = 1
    made, made_by = tmp_path / "a.seg.dcm", MadeBy(algorithm="x", version="1")
    write_segmentation(
        mask, only(tmp_path / "scan").scans[0], made, labels={"a": 1}, made_by=made_by
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = highdicom.seg.segread(made).get_volume(combine_segments=True)
    assert volume.spacing == (2, 0.5, 0.75) and np.count_nonzero(volume.array) == 4
    places = np.argwhere(volume.array) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    assert sorted(places[:, 2]) == [0, 0, 0, 4]


def test_each_frame_has_its_own_slope(tmp_path):
    groups = [
        at(z, PixelValueTransformationSequence=item(RescaleSlope=s, RescaleIntercept=1, RescaleType="US"))
        for z, s in ((0, 1), (2, 0.5), (4, 3))
    ]  # fmt: skip
    of_all = item(RescaleSlope=7, RescaleIntercept=7, RescaleType="US")
    stored = write_frames(tmp_path / "a.dcm", groups, PixelValueTransformationSequence=of_all)
    expected = stored * np.array([1, 0.5, 3]).reshape(3, 1, 1) + 1
    np.testing.assert_allclose(read_case(only(tmp_path), ("MR",)).channels[0], expected)


def test_a_converted_series_is_that_of_its_files(tmp_path):
    stored = write_series(tmp_path / "files", slices=5, cosines=(0.8, 0.6, 0, 0, 0, -1))
    for file in (tmp_path / "files").iterdir():
        dataset = pydicom.dcmread(file)
        for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyID", "StudyDate"):
            setattr(dataset, name, "")
        dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
        dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = "1.2.9", ""
        dataset.SoftwareVersions = dataset.DeviceSerialNumber = "1"
        dataset.Manufacturer = dataset.ManufacturerModelName = "x"
        dataset.save_as(file)
    datasets = [pydicom.dcmread(file) for file in sorted((tmp_path / "files").iterdir())]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        converted = highdicom.legacy.LegacyConvertedEnhancedCTImage(
            datasets, "1.2.4", 4, "1.2.5", 1
        )
    (tmp_path / "one").mkdir()
    converted.save_as(tmp_path / "one" / "all.dcm")
    cases = {
        case.id: read_case(case, ("CT",)) for case in find_cases(tmp_path, channels=("CT",)).cases
    }
    assert np.array_equal(cases["one"].channels[0], stored)
    assert cases["one"].grid == cases["files"].grid


def stacks(*places):
    """The frames of stacks that lie anywhere."""
    return [
        at(z, **content(StackID=str(n))) for n, heights in enumerate(places, 1) for z in heights
    ]


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        (
            [at(z, **content(TemporalPositionIndex=t)) for t in (1, 2) for z in (0, 2, 4)],
            ["time-1", "time-2"],
        ),
        (
            [
                at(z, MREchoSequence=item(EffectiveEchoTime=t))
                for z in (0, 2, 4)
                for t in (4.6, 9.2)
            ],
            ["echo-4.6", "echo-9.2"],
        ),
        (stacks((0, 3), (51, 54)), ["stack-1", "stack-2"]),
        (stacks((0, 2), (4, 6)), []),
    ],
)
def test_volumes_of_one_object_are_cases_of_their_own(groups, names, tmp_path):
    stored = write_frames(tmp_path / "s" / "a.dcm", groups)
    found = find_cases(tmp_path, channels=("MR",))
    assert found.ids == ([f"s_{name}" for name in names] or ["s"])
    frames_of = [case.scans[0].frames for case in found.cases]
    for case, numbers in zip(found.cases, frames_of, strict=True):
        voxels = read_case(case, ("MR",)).channels[0]
        assert np.array_equal(voxels, stored[[number - 1 for number in numbers]])
    assert sorted(sum(frames_of, ())) == list(range(1, len(groups) + 1))


def test_several_objects_of_a_series_are_cases_of_their_own(tmp_path):
    for name in ("a", "b"):
        write_frames(tmp_path / "s" / f"{name}.dcm", [at(z) for z in (0, 2)])
    assert len(find_cases(tmp_path, channels=("MR",)).cases) == 2


@pytest.mark.parametrize("what", ["identical", "pixels", "slope", "position", "zip"])
def test_an_identical_copy_of_an_object_is_left_out_with_a_note(what, tmp_path):
    path = tmp_path / "s" / "a.dcm"
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1, "RescaleType": "US"}
    write_frames(path, [at(z) for z in (0, 2)], PixelValueTransformationSequence=item(**rescale))
    dataset = pydicom.dcmread(path)
    if what == "pixels":
        dataset.PixelData = bytes(len(dataset.PixelData))
    elif what == "slope":
        of_all = item(**rescale | {"RescaleSlope": 2})
        dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence = of_all
    elif what == "position":
        dataset.PerFrameFunctionalGroupsSequence = [item(**at(z))[0] for z in (0, 3)]
    dataset.save_as(path.with_name("a(1).dcm"))
    if what == "zip":
        with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
            for file in sorted(path.parent.iterdir()):
                archive.write(file, file.name)
        shutil.rmtree(path.parent)
    cases = find_cases(tmp_path, channels=("MR",)).cases
    if what in ("identical", "zip"):
        (case,) = cases
        assert case.id == "s" and "1 file left out" in case.notes[0]
    else:
        assert len(cases) == 2 and any("probably a copy" in str(one.notes) for one in cases)


def cut(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])


def deleting(*names):
    def change(dataset):
        for name in names:
            delattr(dataset, name)

    return change


def deflate(dataset):
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def setting(**elements):
    def change(dataset):
        for name, value in elements.items():
            setattr(dataset, name, value)

    return change


@pytest.mark.parametrize(
    ("groups", "change", "reason"),
    [
        ([at(0), {}], None, "a.dcm frame 2 has no ImagePositionPatient"),
        ([at(0), at(2), at(7)], None, "uneven"),
        ([at(0), at(2)], deleting("PerFrameFunctionalGroupsSequence"), "does not describe its frames"),
        ([at(0), at(2)], setting(NumberOfFrames=3), "has 3 and describes 2"),
        ([at(0), at(2)], setting(ConcatenationUID="1.2"), "part of a concatenation"),
        ([at(0), at(2)], deflate, "deflated"),
    ],
)  # fmt: skip
def test_what_makes_no_volume_is_refused_by_name(groups, change, reason, tmp_path):
    write_frames(tmp_path / "s" / "a.dcm", groups, change=change or (lambda dataset: None))
    found = find_cases(tmp_path, channels=("MR",))
    assert not found.cases
    assert reason in found.rejected[0].reason and "a.dcm" in found.rejected[0].reason


def test_pixels_that_end_early_and_descriptions_without_end(tmp_path, monkeypatch):
    path = tmp_path / "s" / "a.dcm"
    write_frames(path, [at(0), at(2)])
    whole = path.read_bytes()
    case = only(tmp_path)
    cut(path, len(whole) - 1)
    with pytest.raises(CaseError, match="ends within its frame 2"):
        read_case(case, ("MR",))
    broken = setting(PixelData=encapsulate([b"ab"]))
    write_frames(path, [at(0), at(2)], change=broken, syntax=RLELossless)
    with pytest.raises(CaseError, match=r"a\.dcm"):
        read_case(only(tmp_path), ("MR",))
    path.write_bytes(whole)
    monkeypatch.setattr(frames, "_LONGEST_HEADER", 400)
    found = find_cases(tmp_path, channels=("MR",))
    assert not found.cases and "a.dcm" in found.rejected[0].reason
