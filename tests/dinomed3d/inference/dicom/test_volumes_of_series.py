"""One series as the volumes it holds: copies, scouts, phases; what stays as it is to be refused."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.dicom.series import find_series, find_series_in_archive
from dinomed3d.inference.dicom.volume import read_series, series_scan
from dinomed3d.inference.dicom.volumes_of_series import SeriesVolume, volumes_of_series
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.runtime.files.safe_zip import check_archive
from tests.dinomed3d.inference.dicom.dicom_series import write_series

UID = "1.2.840.1"


def volumes(folder: Path) -> list[SeriesVolume]:
    (series,) = find_series(sorted(folder.iterdir())).series
    return volumes_of_series(series)


def write_phase(
    folder: Path, value: int, keyword: str = "AcquisitionNumber", text: str | None = None
) -> np.ndarray:
    """Four slices at the positions of every other phase, which differ in pixels and names of files."""

    def change(dataset: Dataset, z: int) -> None:
        setattr(dataset, keyword, value if text is None else text)
        pixels = np.full((5, 6), 100 * value + z, np.uint16)
        dataset.PixelData = pixels.tobytes()

    write_series(folder, uid=UID, change=change, name=lambda z: f"p{value}_{z}.dcm")
    return 100 * value + np.arange(4) - 1024


def test_byte_identical_copies_are_one_slice(tmp_path: Path) -> None:
    hounsfield = write_series(tmp_path)
    for name in ("3.dcm", "6.dcm"):
        shutil.copy(tmp_path / name, tmp_path / name.replace(".", "(1)."))
    (volume,) = volumes(tmp_path)
    assert len(volume.series.slices) == 4 and "2 files left out" in volume.notes[0]
    np.testing.assert_array_equal(read_series(series_scan(volume.series))[0], hounsfield)
    packed = tmp_path / "all.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in sorted(tmp_path.glob("*.dcm")):
            archive.write(file, file.name)
    (series,) = find_series_in_archive(packed, check_archive(packed)).series
    (volume,) = volumes_of_series(series)
    assert len(volume.series.slices) == 4


@pytest.mark.parametrize("what", ["pixels", "uid", "position"])
def test_a_copy_that_differs_is_not_dropped(tmp_path: Path, what: str) -> None:
    write_series(tmp_path)
    dataset = pydicom.dcmread(tmp_path / "3.dcm")
    if what == "pixels":
        dataset.PixelData = bytes(len(dataset.PixelData))
    elif what == "uid":
        dataset.SOPInstanceUID = "1.2.3.4"
    else:
        dataset.ImagePositionPatient = [-10, 20, 30.5]
    dataset.save_as(tmp_path / "3(1).dcm")
    (volume,) = volumes(tmp_path)
    assert len(volume.series.slices) == 5 and not volume.notes
    with pytest.raises(CaseError):
        series_scan(volume.series)


@pytest.mark.parametrize(
    ("keyword", "word"),
    [("AcquisitionNumber", "acquisition"), ("TemporalPositionIdentifier", "time")],
)
def test_phases_at_the_same_positions_are_separate_volumes(
    tmp_path: Path, keyword: str, word: str
) -> None:
    values = {number: write_phase(tmp_path, number, keyword) for number in (2, 10)}
    found = volumes(tmp_path)
    assert [volume.name for volume in found] == [f"{word}-2", f"{word}-10"]  # by number, not text
    for volume, number in zip(found, (2, 10), strict=True):
        assert f"{keyword} {number}" in volume.notes[0]
        voxels, _ = read_series(series_scan(volume.series))
        np.testing.assert_array_equal(voxels[:, 0, 0], values[number])


@pytest.mark.parametrize(
    ("keyword", "values", "names"),
    [
        ("ConvolutionKernel", ("B30f", "B70f"), ("kernel-B30f", "kernel-B70f")),
        ("ContrastBolusAgent", ("", "Iodine"), ("contrast-1", "contrast-2")),
        ("AcquisitionDateTime", ("20200101101010", "20200101101510"), ("time-1", "time-2")),
        ("NominalPercentageOfCardiacPhase", (10.0, 70.0), ("phase-10.0", "phase-70.0")),
        ("ContentTime", ("101010.0", "101510.0"), ("time-101010.0", "time-101510.0")),
    ],
)
def test_reconstructions_contrasts_and_times_are_separate_volumes(
    tmp_path: Path, keyword: str, values: tuple[str, str], names: tuple[str, str]
) -> None:
    for number, value in enumerate(values, 1):
        write_phase(tmp_path, number, keyword, value)
    found = volumes(tmp_path)
    assert sorted(volume.name for volume in found) == sorted(names)
    assert all(len(volume.series.slices) == 4 for volume in found)


def test_a_value_too_long_for_a_name_numbers_all_volumes(tmp_path: Path) -> None:
    for number, time in ((1, "2"), (2, "93015.12345678")):  # "2" is also the place of the other
        write_phase(tmp_path, number, "TriggerTime", time)
    assert [volume.name for volume in volumes(tmp_path)] == ["trigger-1", "trigger-2"]


def test_phases_become_cases_with_names_of_their_own(tmp_path: Path) -> None:
    for number in (1, 2):
        write_phase(tmp_path / "ct", number)
    found = find_cases(tmp_path, channels=["CT"])
    assert found.ids == ["ct_acquisition-1", "ct_acquisition-2"]
    assert all(len(case.scans[0].files) == 4 for case in found.cases)


def test_a_phase_with_a_lost_slice_is_refused_as_before(tmp_path: Path) -> None:
    for number in (1, 2):
        write_phase(tmp_path, number)
    (tmp_path / "p1_1.dcm").unlink()  # phase 1 has a gap: no element leaves even stacks
    (volume,) = volumes(tmp_path)
    with pytest.raises(CaseError, match="AcquisitionNumber"):
        series_scan(volume.series)


def test_acquisitions_one_behind_the_other_stay_one_volume(tmp_path: Path) -> None:
    write_series(tmp_path, change=lambda dataset, z: setattr(dataset, "AcquisitionNumber", z // 2))
    (volume,) = volumes(tmp_path)
    assert not volume.name and not volume.notes and len(volume.series.slices) == 4


@pytest.mark.parametrize(("scouts", "left_out"), [(1, 1), (2, 0)])
def test_a_few_slices_in_another_orientation_are_scouts(
    tmp_path: Path, scouts: int, left_out: int
) -> None:
    write_series(tmp_path, slices=7, uid=UID)  # four slices for each scout: one is, two are not
    write_series(
        tmp_path, slices=scouts, uid=UID, cosines=(0, 1, 0, 0, 0, -1), name=lambda z: f"s{z}.dcm"
    )
    (volume,) = volumes(tmp_path)
    assert len(volume.series.slices) == 7 + scouts - left_out
    assert ("scout" in " ".join(volume.notes)) == bool(left_out)
