"""DICOM segmentations: read back by other routes than the writer's, with masks no flip leaves equal."""

from __future__ import annotations

import builtins
import sys
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from dinomed3d.inference.case import CaseError, Scan
from dinomed3d.inference.dicom.derived import MadeBy
from dinomed3d.inference.dicom.dicom_seg import write_segmentation
from dinomed3d.inference.dicom.segments import describe_segment, foreground_labels
from dinomed3d.inference.dicom.series import find_series
from dinomed3d.inference.dicom.structure_set import write_structure_set
from dinomed3d.inference.dicom.volume import series_scan
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.dicom.dicom_series import Change, write_series

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    highdicom = pytest.importorskip("highdicom", reason="the extra dinomed3d[dicom]")

LABELS = {"background": 0, "Liver": 1, "kidney_left": 2, "cyst 3": 3}
TRAINED = MadeBy(algorithm="nnUNetTrainer 3d_fullres", version="0123abc")
MADE_BY = {"made_by": TRAINED}
SERIES = ("dicom_torchio_ct", "hippocrop_dicom/Study1_13_HCropVolume")


def sorted_by_itk(folder: Path) -> tuple[str, ...]:
    return sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))


def lopsided(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Blocks in one corner, voxels on another: every flip and every swap of axes changes it."""
    mask = np.zeros(shape, dtype=np.uint8)
    mask[1:4, 2:9, 3:7] = 1
    mask[3:, 5:15, 10:12] = 2
    mask[0, 0, -1] = mask[2, -1, 0] = 2
    mask[-2, 1, 1:3] = 3
    return mask


def scan_of(files: tuple[str, ...], **more: Any) -> Scan:
    return Scan(files=files, ending=".dcm", **more)


def write(folder: Path, mask: NDArray[Any], files: tuple[str, ...], **more: Any) -> Path:
    path = folder / "01.seg.dcm"
    write_segmentation(mask, scan_of(files), path, **{"labels": LABELS, **MADE_BY, **more})
    assert [p.name for p in folder.iterdir() if "seg" in p.name] == ["01.seg.dcm"]
    return path


@pytest.fixture
def slices(tmp_path: Path) -> tuple[str, ...]:
    return oblique_series(tmp_path / "series")


def oblique_series(
    folder: Path, *, change: Change = lambda header, z: None, **elements: Any
) -> tuple[str, ...]:
    """6 slices of 7 x 9 voxels, 2.5 mm apart; a list holds the element of each slice."""

    def describe(header: Any, z: int) -> None:
        header.SOPInstanceUID = f"1.2.3.4.{z + 1}"
        header.FrameOfReferenceUID = "1.2.3.5"
        header.PatientName, header.ContentDate = "Test^Case", "20200101"
        for tag, value in elements.items():
            setattr(header, tag, value[z] if isinstance(value, list) else value)
        change(header, z)

    write_series(
        folder,
        slices=6,
        shape=(7, 9),
        spacing=(2.5, 0.75, 0.5),
        cosines=(0.8, 0.6, 0, 0, 0, -1),
        origin=(10, -20, 30),
        uid="1.2.3.4",
        name=lambda z: f"{z}.dcm",
        change=describe,
    )
    return tuple(str(folder / f"{z}.dcm") for z in range(6))


def by_source(path: Path, files: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """Each segment (Z, Y, X) as highdicom's reader finds it from the instances of the series."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = highdicom.seg.segread(path)
        uids = [pydicom.dcmread(f, stop_before_pixels=True).SOPInstanceUID for f in files]
        stack = content.get_pixels_by_source_instance(uids, assert_missing_frames_are_empty=True)
    names = [item.SegmentLabel for item in content.SegmentSequence]
    return {name: stack[..., k] for k, name in enumerate(names)}


@pytest.mark.parametrize("series", SERIES)
def test_each_label_is_found_again_in_the_slices_and_in_space(
    shared: Path, tmp_path: Path, series: str
) -> None:
    files = sorted_by_itk(shared / "data" / "medical" / series)
    image = sitk.ReadImage(files)
    mask = lopsided(image.GetSize()[::-1])
    path = write(tmp_path, mask, files)
    found = by_source(path, files)
    assert list(found) == ["Liver", "kidney_left", "cyst 3"]
    for value, plane in enumerate(found.values(), start=1):
        assert np.array_equal(plane, mask == value)
    check_places(pydicom.dcmread(path), image, mask)


def check_places(content: Any, image: sitk.Image, mask: NDArray[Any]) -> None:
    """Every voxel of every frame, through DICOM's equation C.7.6.2.1-1, on the image's grid."""
    shared_groups = content.SharedFunctionalGroupsSequence[0]
    orientation = shared_groups.PlaneOrientationSequence[0].ImageOrientationPatient
    right, down = np.reshape(np.array(orientation, dtype=float), (2, 3))
    measures = shared_groups.PixelMeasuresSequence[0]
    down_mm, right_mm = (float(v) for v in measures.PixelSpacing)
    assert float(measures.SpacingBetweenSlices) == pytest.approx(image.GetSpacing()[2], abs=1e-3)
    rebuilt = np.zeros_like(mask)
    frames = np.atleast_3d(content.pixel_array)
    for group, frame in zip(content.PerFrameFunctionalGroupsSequence, frames, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, dtype=float)
        for row, column in np.argwhere(frame):
            point = corner + column * right_mm * right + row * down_mm * down
            x, y, z = image.TransformPhysicalPointToIndex(point.tolist())
            rebuilt[z, y, x] = number
    assert np.array_equal(rebuilt, mask)


def test_an_oblique_series_keeps_its_geometry(tmp_path: Path, slices: tuple[str, ...]) -> None:
    mask = np.zeros((6, 7, 9), dtype=np.uint8)
    mask[1, 2, 3], mask[4, 6, 0], mask[2:4, 0, 7] = 1, 2, 3
    image = sitk.Image((9, 7, 6), sitk.sitkUInt8)
    image.SetSpacing((0.5, 0.75, 2.5))
    image.SetOrigin((10, -20, 30))
    image.SetDirection([0.8, 0.0, -0.6, 0.6, 0.0, 0.8, 0.0, -1.0, 0.0])  # columns: x, y, z
    content = pydicom.dcmread(write(tmp_path, mask, slices))
    check_places(content, image, mask)
    assert content.PatientName == "Test^Case"
    assert content.ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.3.4"
    assert len(content.ReferencedSeriesSequence[0].ReferencedInstanceSequence) == 6


def test_a_jpeg_2000_series(shared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "restored"
    folder.mkdir()
    source = shared / "data" / "medical" / "totalseg_samples" / "ct_dicom"
    (anonymous,) = find_series(source.iterdir()).series
    files = series_scan(anonymous).files
    mask = lopsided((20, 512, 512))
    with pytest.raises(CaseError, match="no SOPClassUID, SOPInstanceUID, StudyInstanceUID"):
        write(tmp_path, mask, files)
    restored = []
    for file in files:  # anonymisation has removed the UIDs: restore them
        header = pydicom.dcmread(file)
        assert header.file_meta.TransferSyntaxUID == pydicom.uid.JPEG2000Lossless
        header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID
        header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID
        header.StudyInstanceUID, header.SeriesInstanceUID = "1.2.3", "1.2.3.4"
        header.save_as(folder / f"{header.InstanceNumber}.dcm")
        restored.append(str(folder / f"{header.InstanceNumber}.dcm"))
    path = write(tmp_path, mask, tuple(restored))
    check_places(pydicom.dcmread(path), sitk.ReadImage(restored), mask)


def test_regions_overlap(tmp_path: Path, slices: tuple[str, ...]) -> None:
    mask = np.zeros((6, 7, 9), dtype=np.uint8)
    mask[1:4, 2, 3:8], mask[2, 2, 5] = 1, 2
    labels = {"background": 0, "whole tumor": [1, 2], "core": [2], "absent": [3]}
    path = tmp_path / "01.seg.dcm"
    notes = write_segmentation(mask, scan_of(slices), path, labels=labels, **MADE_BY)
    assert notes == ["no voxels, not in the DICOM segmentation: absent"]
    found = by_source(path, slices)
    assert np.array_equal(found["whole tumor"], mask > 0)
    assert np.array_equal(found["core"], mask == 2)
    assert pydicom.dcmread(path).SegmentsOverlap == "YES"


@pytest.mark.parametrize("labels", [LABELS, {"background": 0, "a": [1, 2], "b": [2], "ignore": 3}])
def test_an_empty_mask_is_a_valid_object(
    tmp_path: Path, slices: tuple[str, ...], labels: Any
) -> None:
    path = write(tmp_path, np.zeros((6, 7, 9), dtype=np.uint8), slices, labels=labels)
    content = pydicom.dcmread(path)
    names = [item.SegmentLabel for item in content.SegmentSequence]
    assert names == [name for name in labels if name not in ("background", "ignore")]
    assert int(content.NumberOfFrames) == len(names) and not content.pixel_array.any()


def test_one_label_of_16_bits_on_a_single_slice(tmp_path: Path, slices: tuple[str, ...]) -> None:
    mask = np.zeros((1, 7, 9), dtype=np.uint16)
    mask[0, 2:, 3] = 300
    path = write(tmp_path, mask, slices[2:3], labels={"Spleen": 300})
    found = by_source(path, slices[2:3])
    assert list(found) == ["Spleen"] and np.array_equal(found["Spleen"], mask == 300)


def test_the_same_call_gives_the_same_bytes(tmp_path: Path, slices: tuple[str, ...]) -> None:
    mask = np.zeros((6, 7, 9), dtype=np.uint8)
    mask[1, 2, 3] = 1
    path = write(tmp_path, mask, slices)
    first, one = path.read_bytes(), pydicom.dcmread(path)
    assert write(tmp_path, mask, slices).read_bytes() == first
    mask[1, 2, 4] = 1
    other = pydicom.dcmread(write(tmp_path, mask, slices))
    assert one.SeriesInstanceUID == other.SeriesInstanceUID
    assert one.SOPInstanceUID != other.SOPInstanceUID
    newer = pydicom.dcmread(write(tmp_path, mask, slices, made_by=replace(TRAINED, version="2")))
    assert newer.SeriesInstanceUID != other.SeriesInstanceUID


def test_names_beyond_ascii_and_odd_headers(tmp_path: Path) -> None:
    changes = {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müller^Zoë"}
    files = oblique_series(tmp_path / "odd", **changes, PatientSex="X", SeriesNumber=12)
    mask = np.full((6, 7, 9), 1, dtype=np.uint8)
    content = pydicom.dcmread(write(tmp_path, mask, files, labels={"Zähne 歯": 1}))
    assert content.SegmentSequence[0].SegmentLabel == "Zähne 歯"
    assert content.PatientName == "Müller^Zoë" and content.PatientSex == ""
    assert content.SeriesNumber == 1012


@pytest.mark.parametrize("between", [None, "0.5", "3.0"])
@pytest.mark.parametrize("thickness", ["4.0", "0", None, ""])
def test_the_distance_of_slices_is_that_of_their_positions(
    tmp_path: Path, between: str | None, thickness: str | None
) -> None:
    """Headers may hold the gap between slices, or be of a series of which some slices were left out."""

    def stated(header: Any, z: int) -> None:
        for tag, value in (("SpacingBetweenSlices", between), ("SliceThickness", thickness)):
            header.pop(tag, None)
            if value is not None:
                setattr(header, tag, value)

    files = oblique_series(tmp_path / "odd", change=stated)
    mask = np.zeros((6, 7, 9), dtype=np.uint8)
    mask[1, 2, 3] = mask[4, 5, 6] = 1
    path = write(tmp_path, mask, files)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        volume = highdicom.seg.segread(path).get_volume(combine_segments=True)
    assert volume.spacing == (2.5, 0.75, 0.5)
    placed = np.argwhere(volume.array == 1) @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    down, right, up = (
        np.array([0, 0, -0.75]),
        np.array([0.4, 0.3, 0]),
        np.cross([0.8, 0.6, 0], [0, 0, -1]),
    )
    for z, y, x in ((1, 2, 3), (4, 5, 6)):
        place = np.array([10, -20, 30]) + 2.5 * z * up + y * down + x * right
        assert np.abs(placed - place).max(axis=1).min() < 1e-4
    measures = pydicom.dcmread(path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    assert measures.SliceThickness == (4 if thickness == "4.0" else 2.5)


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
        ("GB18030", "Wang^XiaoDong=王^小东"),
        ("ISO 2022 IR 100", "Müller^Zoë"),
        ("utf-8", "Müller^Zoë"),
        ("ISO_IR 6", "Miller^Zoe"),
        ("ISO_IR 144", "Люкceмбypг"),
    ],
)
def test_names_in_any_character_set_are_kept(tmp_path: Path, stated: Any, name: str) -> None:
    def change(header: Any, z: int) -> None:
        header.SpecificCharacterSet, header.PatientName = stated, name

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of sloppy terms
        files = oblique_series(tmp_path / "odd", change=change)
    mask = np.full((6, 7, 9), 1, dtype=np.uint8)
    content = pydicom.dcmread(write(tmp_path, mask, files))
    assert content.PatientName == name
    path = tmp_path / "01.rtstruct.dcm"
    write_structure_set(mask, scan_of(files), path, labels=LABELS, **MADE_BY)
    assert pydicom.dcmread(path).PatientName == name
    kept = "ISO_IR 144" if stated == "ISO_IR 144" else "ISO_IR 192"
    assert content.SpecificCharacterSet == pydicom.dcmread(path).SpecificCharacterSet == kept


def test_dates_that_are_none_become_unknown(tmp_path: Path) -> None:
    odd = {"PatientBirthDate": "19530000", "StudyDate": "0", "StudyTime": "10:20:30"}
    odd |= {"ContentDate": "20200000", "AcquisitionDate": "2020.02.29", "ContentTime": "25"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's, of these values
        files = oblique_series(tmp_path / "odd", **odd)
        mask = np.full((6, 7, 9), 1, dtype=np.uint8)
        content = pydicom.dcmread(write(tmp_path, mask, files))
        path = tmp_path / "01.rtstruct.dcm"
        write_structure_set(mask, scan_of(files), path, labels=LABELS, **MADE_BY)
    structures = pydicom.dcmread(path)
    for made in (content, structures):
        assert (made.PatientBirthDate, made.StudyDate, made.StudyTime) == ("", "", "102030")
    assert (content.ContentDate, content.ContentTime) == ("20200229", "102030")


def test_directions_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    directions = [[0.8, 0.6, 0, 0, 0, -1] for _ in range(6)]
    directions[3] = [0.7999999, 0.6000001, 0, 0, 0, -1]
    files = oblique_series(tmp_path / "odd", ImageOrientationPatient=directions)
    mask = np.zeros((6, 7, 9), dtype=np.uint8)
    mask[2:5, 2, 3] = 1
    assert np.array_equal(by_source(write(tmp_path, mask, files), files)["Liver"], mask == 1)


def test_a_series_in_a_zip(
    tmp_path: Path, slices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "study.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for k, name in enumerate(slices):
            file.write(name, f"a/{9 - k}.dcm")
    members = tuple(f"a/{9 - k}.dcm" for k in range(6))
    mask = np.zeros((6, 7, 9), dtype=np.uint8)
    mask[1, 2, 3] = 1
    path = tmp_path / "01.seg.dcm"
    scan = scan_of(members, archive=str(archive))
    write_segmentation(mask, scan, path, labels=LABELS, **MADE_BY)
    assert path.read_bytes() == write(tmp_path, mask, slices).read_bytes()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"SOPInstanceUID": "1.2.3.9"}, "same SOPInstanceUID"),
        ({"FrameOfReferenceUID": ""}, "no FrameOfReferenceUID"),
        ({"NumberOfFrames": 4}, "holds 4 frames"),
        ({"Columns": 8}, r"the mask is \(6, 7, 9\), the series .* \(6, 7, 8\)"),
        ({"SeriesInstanceUID": [f"1.{z + 1}" for z in range(6)]}, "different SeriesInstanceUIDs"),
        ({"FrameOfReferenceUID": [f"1.2.{z}" for z in range(6)]}, "different FrameOfReferenceUIDs"),
        ({"StudyInstanceUID": ["1.2"] * 5 + ["1.3"]}, "different StudyInstanceUIDs"),
    ],
)
def test_series_that_cannot_be_referred_to(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = oblique_series(tmp_path / "bad", **changes)
    with pytest.raises(CaseError, match=reason) as caught:
        write(tmp_path, np.ones((6, 7, 9), dtype=np.uint8), files)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["bad"]


def test_what_the_library_cannot_make_costs_the_segmentation_alone(
    tmp_path: Path, slices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("month must\nbe in 1..12")

    monkeypatch.setattr(highdicom.seg, "Segmentation", refuse)
    with pytest.raises(CaseError, match="must be in 1..12; the mask itself is not affected"):
        write(tmp_path, np.ones((6, 7, 9), dtype=np.uint8), slices)
    assert [p.name for p in tmp_path.iterdir()] == ["series"]


def test_files_that_are_lost_or_out_of_order(tmp_path: Path, slices: tuple[str, ...]) -> None:
    mask = np.ones((6, 7, 9), dtype=np.uint8)
    with pytest.raises(CaseError, match="have changed"):
        write(tmp_path, mask, (slices[0], slices[2], slices[1], *slices[3:]))
    Path(slices[3]).unlink()
    with pytest.raises(CaseError, match=r"3\.dcm: cannot be opened"):
        write(tmp_path, mask, slices)


@pytest.mark.parametrize("damage", ["bit", "position", "frame", "distance"])
def test_what_reads_back_otherwise_is_not_kept(
    tmp_path: Path, slices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """The comparison is put to the test: a writer that errs in one bit, place, frame or measure."""
    save = pydicom.Dataset.save_as

    def save_damaged(content: Any, path: Path, **more: Any) -> None:
        groups = content.PerFrameFunctionalGroupsSequence
        if damage == "bit":
            content.PixelData = bytes([content.PixelData[0] ^ 4]) + content.PixelData[1:]
        elif damage == "position":
            places = [group.PlanePositionSequence for group in groups]
            groups[0].PlanePositionSequence, groups[1].PlanePositionSequence = places[1], places[0]
        elif damage == "distance":
            group = content.SharedFunctionalGroupsSequence[0]
            group.PixelMeasuresSequence[0].SpacingBetweenSlices = 0.5
        else:
            content.PerFrameFunctionalGroupsSequence = list(groups)[:-1]
            content.NumberOfFrames = len(groups) - 1
            content.PixelData = content.PixelData[: (63 * (len(groups) - 1) + 7) // 8 + 1]
        save(content, path, **more)

    monkeypatch.setattr(highdicom.seg.Segmentation, "save_as", save_damaged)
    mask = np.zeros((6, 7, 9), dtype=np.uint8)
    mask[1:5, 2, 3] = 1
    with pytest.raises(CaseError, match="read back: (segment 'Liver'|slice 4 lies|Spacing)"):
        write(tmp_path, mask, slices)
    assert [p.name for p in tmp_path.iterdir()] == ["series"]


def test_masks_that_are_none(tmp_path: Path, slices: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"uint8 or uint16, got \(6, 7, 9\) float64"):
        write(tmp_path, np.zeros((6, 7, 9)), slices)
    with pytest.raises(ValueError, match=r"values without a label: \[9\]"):
        write(tmp_path, np.full((6, 7, 9), 9, dtype=np.uint8), slices)


def test_without_the_extra(
    tmp_path: Path, slices: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    ordinary = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "highdicom":
            raise ImportError("No module named 'highdicom'")
        return ordinary(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.delitem(sys.modules, "highdicom")
    with pytest.raises(UserError, match="highdicom"):
        write(tmp_path, np.ones((6, 7, 9), dtype=np.uint8), slices)


def test_segments_have_a_generic_code_and_the_name_of_the_label() -> None:
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="a", family=pydicom.sr.codedict.codes.cid7162.ArtificialIntelligence, version="1"
    )
    segment = describe_segment(1, "kidney_left", 0, algorithm=algorithm)
    assert segment.SegmentLabel == "kidney_left"
    for code in (
        segment.SegmentedPropertyCategoryCodeSequence[0],
        segment.SegmentedPropertyTypeCodeSequence[0],
    ):
        assert (code.CodeValue, code.CodingSchemeDesignator) == ("85756007", "SCT")


def test_names_that_dicom_cannot_hold() -> None:
    assert foreground_labels({"background": 0, "a": 1, "b": [1, 2]}) == {"a": (1,), "b": (1, 2)}
    for name in ("x" * 65, "a\\b", "a\nb", " ", "", "Liver ", " Liver"):
        with pytest.raises(UserError, match="rename it"):
            foreground_labels({name: 1})
