"""Finding cases: names, channels, sub-folders, patterns, DICOM, and everything that is none."""

from __future__ import annotations

import os
import random
import time
import zipfile
from pathlib import Path

import pytest

from dinomed3d.inference.case import Case, CaseList
from dinomed3d.inference.discovery.case_ids import case_id, reject_clashes
from dinomed3d.inference.discovery.find_cases import find_cases, parse_patterns
from dinomed3d.inference.discovery.patterns import compile_pattern
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.dicom.dicom_series import write_object, write_series

CT = ["CT"]
TWO = ["T1", "T2"]


def touch(folder: Path, *names: str) -> None:
    """Files of three bytes: discovery does not open images."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"abc")


def ids(cohort: CaseList) -> list[str]:
    return [case.id for case in cohort.cases]


def files(case: Case, folder: Path) -> list[str]:
    return [Path(scan.files[0]).relative_to(folder).as_posix() for scan in case.scans]


def refused(cohort: CaseList) -> dict[str, str]:
    return {one.id: one.reason for one in cohort.rejected}


# --- one channel


def test_each_image_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.NII.GZ", "b/case_0000.nii", "a.mha", "c.d.nrrd", "scan_2023.nii.gz")
    cohort = find_cases(tmp_path, channels=CT)
    assert ids(cohort) == ["a", "b/case", "b/x", "c.d", "scan_2023"]
    assert cohort.rejected == ()
    assert [case.scans[0].ending for case in cohort.cases][:3] == [".mha", ".nii", ".nii.gz"]
    assert cohort.cases[0].size_bytes == 3
    assert cohort.cases[0].scans[0].files == (str(tmp_path / "a.mha"),)


def test_what_is_no_image_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "._a.nii.gz", ".DS_Store", ".cache/b.nii.gz", "__MACOSX/a.nii.gz")
    touch(tmp_path, "x.nhdr", "x.mhd", "y.mgz", "notes.txt", "table.csv", "DICOMDIR", ".nii.gz")
    cohort = find_cases(tmp_path, channels=CT)
    assert ids(cohort) == ["a"]
    assert cohort.ignored == {
        "DICOMDIR": 1,
        "format that is not read (.mgz)": 1,
        "format that is not read (.mhd)": 1,
        "format that is not read (.nhdr)": 1,
        "hidden": 2,
        "macOS '.DS_Store'": 1,
        "macOS '._' file": 1,
        "macOS '__MACOSX' folder": 1,
        "not an image": 2,
    }


def test_a_second_channel_is_not_for_a_model_of_one(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz", "c_0000.nii.gz")
    cohort = find_cases(tmp_path, channels=CT)
    assert ids(cohort) == ["c"]
    assert list(refused(cohort)) == ["a", "b_0001"]
    assert 'add --channels "CT=*"' in refused(cohort)["b_0001"]
    everything = find_cases(tmp_path, channels=CT, patterns={"CT": "*"})
    assert ids(everything) == ["a_0000", "a_0001", "b_0001", "c_0000"]


@pytest.mark.parametrize(
    "names", [("a.nii.gz", "a.mha"), ("a.nii", "A.nii.gz"), ("a_0000.nii.gz", "a.nii.gz")]
)
def test_two_scans_of_one_name_are_both_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    touch(tmp_path, *names, "b.nii.gz")
    cohort = find_cases(tmp_path, channels=CT)
    assert ids(cohort) == ["b"]
    (refusal,) = cohort.rejected
    assert refusal.id in ("a", "A")
    assert "2 inputs would write the same output" in refusal.reason
    assert sorted(Path(file).name for file in refusal.files) == sorted(names)


def test_a_case_is_not_where_another_needs_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii/b.nii", "a.mha")
    cohort = find_cases(tmp_path, channels=CT)
    assert ids(cohort) == ["a.nii/b"]
    assert "needs the folder 'a.nii'" in refused(cohort)["a"]


def test_nothing_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file or folder; check -i"):
        find_cases(tmp_path / "no", channels=CT)
    with pytest.raises(UserError, match="it is empty .*images are .nii"):
        find_cases(tmp_path, channels=CT)
    touch(tmp_path, "._a.nii", "x.mgz")
    with pytest.raises(UserError, match=r"1 x format that is not read \(.mgz\), 1 x macOS"):
        find_cases(tmp_path, channels=CT)
    touch(tmp_path, "a.nii")
    with pytest.raises(UserError, match=r"no pattern of --channels.*patterns were CT=\*b\*"):
        find_cases(tmp_path, channels=CT, patterns={"CT": "*b*"})


def test_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0001.mha", "b_0000.nii.gz", "c.nrrd", "d.txt")
    assert ids(find_cases(tmp_path / "a_0000.nii.gz", channels=CT)) == ["a"]
    (case,) = find_cases(tmp_path / "a_0001.mha", channels=TWO).cases
    assert (case.id, files(case, tmp_path)) == ("a", ["a_0000.nii.gz", "a_0001.mha"])
    assert ids(find_cases(tmp_path / "c.nrrd", channels=TWO)) == ["c"]
    with pytest.raises(UserError, match="1 of 2 channels are missing"):
        find_cases(tmp_path / "b_0000.nii.gz", channels=TWO)
    with pytest.raises(UserError, match="neither an image"):
        find_cases(tmp_path / "d.txt", channels=CT)


def test_links(tmp_path: Path) -> None:
    touch(tmp_path / "in", "z/a.nii.gz")
    touch(tmp_path / "elsewhere", "b.nii.gz")
    try:
        (tmp_path / "in/again").symlink_to(tmp_path / "in/z", target_is_directory=True)
    except OSError:
        pytest.skip("this system lets nobody make links")
    (tmp_path / "in/z/up").symlink_to(tmp_path / "in", target_is_directory=True)
    (tmp_path / "in/other").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "in/gone.nii.gz").symlink_to(tmp_path / "not there")
    cohort = find_cases(tmp_path / "in", channels=CT)
    assert ids(cohort) == ["other/b", "z/a"]  # the real folder, not the link to it
    assert "is a link to a file that is not there" in refused(cohort)["gone"]
    assert cohort.ignored == {"folder of results, or a link to a folder seen before": 2}


def test_results_below_the_input_are_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "out/a.nii.gz")
    assert ids(find_cases(tmp_path, channels=CT, skip=[tmp_path / "out"])) == ["a"]


def test_an_unreadable_folder_costs_only_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "a.nii.gz", "closed/b.nii.gz")
    scandir = os.scandir

    def closed(path: str):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    cohort = find_cases(tmp_path, channels=CT)
    assert ids(cohort) == ["a"]
    assert "cannot be opened: Permission denied" in refused(cohort)["closed"]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("a", "b.c"), "a/b.c"),
        (("sub:1", "T1? ."), "sub_1/T1_"),
        (("CON", "x"), "_CON/x"),
        (("lpt1.nii",), "_lpt1.nii"),
        (("..", "x"), "_/x"),
        (("run",), "_run"),
        (("Report",), "_Report"),
        (("a", "run"), "a/run"),
        (("e\u0301",), "\u00e9"),
        (("\udcff",), "_"),
    ],
)
def test_ids_are_names_everywhere(parts: tuple[str, ...], expected: str) -> None:
    assert case_id(parts) == expected


def test_long_names_are_cut_and_stay_different() -> None:
    one, two = case_id(("ä" * 120 + "1",)), case_id(("ä" * 120 + "2",))
    assert len(one.encode()) <= 180
    assert one != two


def test_order_does_not_depend_on_the_folder() -> None:
    a, b = (Case(id=name, scans=()) for name in "ab")
    assert reject_clashes([b, a], []) == reject_clashes([a, b], [])


def test_many_files_take_a_moment(tmp_path: Path) -> None:
    for k in range(2000):
        (tmp_path / f"{k}.nii.gz").touch()
    start = time.perf_counter()
    assert len(find_cases(tmp_path, channels=CT).cases) == 2000
    assert time.perf_counter() - start < 1


# --- several channels


def test_nnunet_names(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0001.mha", "sub/a_0000.nii", "sub/a_0001.nii")
    cohort = find_cases(tmp_path, channels=TWO)
    assert ids(cohort) == ["a", "sub/a"]
    assert files(cohort.cases[0], tmp_path) == ["a_0000.nii.gz", "a_0001.mha"]
    assert cohort.cases[0].size_bytes == 6


def test_incomplete_nnunet_names(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "b_0001.nii.gz", "c_0000.nii", "c_0001.nii", "c_0002.nii")
    touch(tmp_path, "d_0000.nii", "d_0000.mha", "d_0001.nii", "e/f_0000.nii", "f_0001.nii")
    reasons = refused(find_cases(tmp_path, channels=TWO))
    assert list(reasons) == ["a", "b", "c", "d", "e/f", "f"]
    assert "T2 (_0001) is missing: found a_0000.nii.gz" in reasons["a"]
    assert "T1 (_0000) is missing" in reasons["b"]
    assert "has no channel _0002" in reasons["c"]
    assert "T1 (_0000) is there more than once" in reasons["d"]


def test_one_file_may_hold_all_channels(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz")
    (case,) = find_cases(tmp_path, channels=TWO).cases
    assert (case.id, len(case.scans)) == ("a", 1)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["T1/a.nii.gz", "T2/a.nii.gz"], "a"),
        (["t1/a.nii.gz", "t2/a.mha"], "a"),
        (["x/T1.nii.gz", "x/T2.nii.gz"], "x"),
        (["T1.nii.gz", "T2.nii.gz"], "input"),
        (["x/T1/p.nii.gz", "x/T2/q.nii.gz"], "x"),
        (["T1/s/a.nii.gz", "T2/s/a.nii.gz"], "s/a"),
        (["T1/a_0000.nii.gz", "T2/a_0001.nii.gz"], "a"),
        (["T1/a/T1.nii.gz", "T2/a/T2.nii.gz"], "a"),
    ],
)
def test_sub_folders(tmp_path: Path, names: list[str], expected: str) -> None:
    folder = tmp_path / "input"
    touch(folder, *names)
    cohort = find_cases(folder, channels=TWO)
    assert cohort.rejected == ()
    assert (ids(cohort), files(cohort.cases[0], folder)) == ([expected], names)
    assert "channels by sub-folders or files named T1, T2" in cohort.cases[0].notes


def test_sub_folders_that_are_not_clear(tmp_path: Path) -> None:
    touch(tmp_path, "T1/a.nii.gz", "T2/b.nii.gz")  # two people, perhaps
    touch(tmp_path, "T1/c.nii.gz", "T1/c.mha", "T2/c.mha")
    touch(tmp_path, "T1/d/T2.nii.gz", "T2/e_0000.nii.gz")
    touch(tmp_path, "x/T1/p.nii.gz", "x/T1/q.nii.gz", "x/T2/r.nii.gz")
    touch(tmp_path, "y/T1/p.nii.gz")
    cohort = find_cases(tmp_path, channels=TWO)
    assert cohort.cases == ()
    reasons = refused(cohort)
    assert list(reasons) == ["T1/d/T2", "T2/e_0000", "a", "b", "c", "x", "y"]
    assert "channel T2 is missing: found T1/a.nii.gz" in reasons["a"]
    assert "channel T1 is there more than once" in reasons["c"]
    assert "names several channels (T1, T2)" in reasons["T1/d/T2"]
    assert "channel T1 is there more than once" in reasons["x"]
    assert "channel T2 is missing" in reasons["y"]


# --- patterns


def test_patterns_are_read() -> None:
    read = parse_patterns(["t2=*t2*", " T1 = *t1*.nii.gz"], TWO)
    assert read == {"T1": "*t1*.nii.gz", "T2": "*t2*"}
    assert list(read) == TWO


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["T1"], "'T1' is not NAME=PATTERN"),
        (["T1="], "is not NAME=PATTERN"),
        (["T1=*a", "T1=*b"], "'T1' is given twice"),
        (["T1=*a", "t1=*b"], "'T1' is given twice"),
        (["T1=*a", "T3=*b"], "no channel 'T3'; it has T1, T2"),
        (["T1=*a"], 'no pattern for T2.*"T1=.t1..nii.gz" "T2='),
        (["T1=a/*", "T2=*"], "leave the folders out"),
    ],
)
def test_wrong_patterns(words: list[str], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        parse_patterns(words, TWO)


@pytest.mark.parametrize(
    ("pattern", "name", "groups"),
    [
        ("*t1*", "a_T1.nii", ("a_", ".nii")),
        ("?[ab]*", "xb.c", ("x", "b", ".c")),
        ("[!a].nii", "b.nii", ("b",)),
        ("[!a].nii", "a.nii", None),
        ("[]]x", "]x", ("]",)),
        ("a[b", "a[b", ()),
        ("a.b", "axb", None),
    ],
)
def test_wildcards(pattern: str, name: str, groups: tuple[str, ...] | None) -> None:
    match = compile_pattern(pattern).fullmatch(name)
    assert (None if match is None else match.groups()) == groups


def test_patterns_in_folders_of_cases(tmp_path: Path) -> None:
    touch(tmp_path, "p/mprage_t1.nii.gz", "p/tse_t2_x.nii.gz", "p/other.nii.gz")
    touch(tmp_path, "q/r/T1.mha", "q/r/T2.mha", "s/t1.nii.gz")
    cohort = find_cases(tmp_path, channels=TWO, patterns={"T1": "*t1*", "T2": "*t2*"})
    assert ids(cohort) == ["p", "q/r"]
    assert files(cohort.cases[0], tmp_path) == ["p/mprage_t1.nii.gz", "p/tse_t2_x.nii.gz"]
    first, second = cohort.cases[0].notes
    assert first == "channels by patterns: T1 = mprage_t1.nii.gz, T2 = tse_t2_x.nii.gz"
    assert "the only ones of their channels in the folder" in second
    assert len(cohort.cases[1].notes) == 1
    assert cohort.ignored == {"name that no pattern of --channels matches": 1}
    assert "channel T2 (*t2*) is missing" in refused(cohort)["s"]


def test_patterns_with_many_cases_in_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "anna_t1.nii.gz", "Anna_T2.nii", "bob_t1.nii.gz", "bob_t2.nii.gz")
    touch(tmp_path, "carl_t1.nii.gz", "dora_t1.mha", "dora_t1.nii", "dora_t2.nii", "eve_t1_t2.nii")
    cohort = find_cases(tmp_path, channels=TWO, patterns={"T1": "*_t1*", "T2": "*_t2*"})
    assert ids(cohort) == ["Anna", "bob"]
    reasons = refused(cohort)
    assert list(reasons) == ["carl", "dora", "eve_t1_t2"]
    assert "channel T2 (*_t2*) is missing: found carl_t1.nii.gz" in reasons["carl"]
    assert "channel T1 (*_t1*) is there more than once" in reasons["dora"]
    assert reasons["eve_t1_t2"] == "eve_t1_t2.nii matches the patterns of T1 (*_t1*) and T2 (*_t2*)"


def test_two_people_are_never_one_case(tmp_path: Path) -> None:
    touch(tmp_path, "anna_t1.nii.gz", "bob_t2.nii.gz")
    cohort = find_cases(tmp_path, channels=TWO, patterns={"T1": "*t1*", "T2": "*t2*"})
    assert cohort.cases == ()
    assert list(refused(cohort)) == ["anna", "bob"]


def test_one_case_directly_in_the_input(tmp_path: Path) -> None:
    touch(tmp_path / "patient", "t1.nii.gz", "t2.nii.gz")
    patterns = {"T1": "t1*", "T2": "t2*"}
    assert ids(find_cases(tmp_path / "patient", channels=TWO, patterns=patterns)) == ["patient"]


# --- DICOM


def test_series_are_cases(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    write_series(folder / "p1")
    write_series(folder / "p2/study", number=3, name=lambda z: f"a{z}")
    write_series(folder / "p2/study", number=4, name=lambda z: f"b{z}")
    write_series(folder / "p2/study", number=4, name=lambda z: f"c{z}", uid="1.2.3.4")
    write_object(folder / "p2/study", "sr", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    cohort = find_cases(folder, channels=CT)
    assert ids(cohort)[:2] == ["p1", "p2/study/series-3"]
    assert len(ids(cohort)) == 4
    assert all(one.startswith("p2/study/series-4-") for one in ids(cohort)[2:])
    assert cohort.ignored == {"DICOM structured report": 1}
    assert cohort.cases[0].notes == ()
    assert cohort.cases[0].size_bytes == sum(f.stat().st_size for f in (folder / "p1").iterdir())
    assert cohort.cases[1].notes == (
        "one of 3 DICOM series in the same place: series 3, axial, 4 files",
    )


def test_a_series_directly_in_the_input_and_one_of_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "patient"
    write_series(folder)
    write_series(tmp_path / "two", number=1, name=lambda z: f"a{z}")
    write_series(tmp_path / "two", number=2, name=lambda z: f"b{z}")
    assert ids(find_cases(folder, channels=CT)) == ["patient"]
    (case,) = find_cases(folder / "3.dcm", channels=CT).cases
    assert (case.id, len(case.scans[0].files)) == ("patient", 4)
    (case,) = find_cases(tmp_path / "two/b3", channels=CT).cases
    assert (case.id, case.scans[0].series) == ("series-2", "series 2, axial, 4 files")


def test_zips(tmp_path: Path) -> None:
    for number in (1, 2):
        write_series(tmp_path / "s", number=number, name=lambda z, n=number: f"{n}{z}")
    folder = tmp_path / "in"
    folder.mkdir()
    for name, wanted in (("both.zip", "12"), ("one.ZIP", "1")):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path in (tmp_path / "s").iterdir():
                if path.name[0] in wanted:
                    archive.write(path, f"x/{path.name}")
    with zipfile.ZipFile(folder / "text.zip", "w") as archive:
        archive.writestr("a.txt", "text")
    touch(folder, "broken.zip")
    cohort = find_cases(folder, channels=CT)
    assert ids(cohort) == ["both/series-1", "both/series-2", "one"]
    assert cohort.cases[2].scans[0].archive == str(folder / "one.ZIP")
    assert "not a whole zip archive" in refused(cohort)["broken"]
    assert cohort.ignored == {"zip without a DICOM series (unpack it if it holds images)": 1}
    assert ids(find_cases(folder / "one.ZIP", channels=CT)) == ["one"]


def test_bad_series_are_refused_and_broken_files_told(tmp_path: Path) -> None:
    def gap(dataset, z):
        if z == 3:
            dataset.ImagePositionPatient = [-10.0, 20.0, 40.0]

    write_series(tmp_path / "gap", change=gap)
    write_series(tmp_path / "cut")
    (tmp_path / "cut/6.dcm").write_bytes((tmp_path / "cut/6.dcm").read_bytes()[:200])
    touch(tmp_path, "none/x.dcm")
    cohort = find_cases(tmp_path, channels=CT)
    reasons = refused(cohort)
    assert list(reasons) == ["cut", "cut/unreadable-dicom", "gap", "none"]
    assert "uneven: 2 to 6 mm" in reasons["gap"]
    assert "6.dcm it ends within its DICOM header" in reasons["cut/unreadable-dicom"]
    assert "x.dcm is called DICOM and is not" in reasons["none"]


def test_a_broken_file_at_the_end_is_noted(tmp_path: Path) -> None:
    write_series(tmp_path / "a", name=lambda z: f"{z}.dcm")
    (tmp_path / "a/3.dcm").write_bytes(b"")
    cohort = find_cases(tmp_path, channels=CT)
    assert "slices at its ends may be missing" in cohort.cases[0].notes[0]
    assert list(refused(cohort)) == ["a/unreadable-dicom"]


def test_a_series_spread_over_folders_is_put_together(tmp_path: Path) -> None:
    for name in "AB":
        (tmp_path / "disk" / name).mkdir(parents=True)
    write_series(tmp_path / "disk", uid="1.2.3", name=lambda z: f"{'AB'[z // 2]}/{z}")
    cohort = find_cases(tmp_path, channels=CT)
    assert ids(cohort) == ["disk/series-3"]
    assert len(cohort.cases[0].scans[0].files) == 4
    assert "its files lie in 2 folders (disk/A, disk/B)" in cohort.cases[0].notes[0]


def test_copies_of_a_series_stay_apart(tmp_path: Path) -> None:
    write_series(tmp_path / "a", uid="1.2.3")
    write_series(tmp_path / "b", uid="1.2.3")
    assert ids(find_cases(tmp_path, channels=CT)) == ["a", "b"]


def test_dicom_with_several_channels(tmp_path: Path) -> None:
    write_series(tmp_path / "p/T1")
    write_series(tmp_path / "p/T2")
    write_series(tmp_path / "q", number=1, description="Ax T1 mprage", name=lambda z: f"a{z}")
    write_series(tmp_path / "q", number=2, description="Ax T2 tse", name=lambda z: f"b{z}")
    cohort = find_cases(tmp_path, channels=TWO)
    assert ids(cohort) == ["p"]
    assert "2 DICOM series" in refused(cohort)["q"]
    assert "series 2, Ax T2 tse, 4 files" in refused(cohort)["q"]
    cohort = find_cases(tmp_path, channels=TWO, patterns={"T1": "*t1*", "T2": "*t2*"})
    assert ids(cohort) == ["p", "q"]
    assert [scan.series[:8] for scan in cohort.cases[1].scans] == ["series 1", "series 2"]


def test_a_bad_channel_refuses_its_case_once(tmp_path: Path) -> None:
    write_series(tmp_path / "p/T1")
    write_series(tmp_path / "p/T2", slices=1, change=lambda d, z: delattr(d, "SliceThickness"))
    cohort = find_cases(tmp_path, channels=TWO)
    assert list(refused(cohort)) == ["p"]
    assert refused(cohort)["p"].startswith("T2: series 3, axial, 1 file: ")


def test_real_folders(shared: Path) -> None:
    medical = shared / "data" / "medical"
    cohort = find_cases(medical / "hippocrop_dicom", channels=["MR"])
    assert ids(cohort) == [f"Study{n}_HCropVolume" for n in ("1_13", "2_14", "3_11")]
    cohort = find_cases(medical / "dicom_ge_tilt_ct", channels=CT)
    assert list(refused(cohort)) == ["dicom_ge_tilt_ct"]
    cohort = find_cases(medical / "Dataset004_Hippocampus" / "imagesTs", channels=["MR"])
    assert cohort.rejected == ()
    assert all(not case.id.endswith("_0000") for case in cohort.cases)


def test_every_file_is_in_a_case_or_refused_or_counted(tmp_path: Path) -> None:
    chance = random.Random(1)
    names = ["T1", "T2", "a", "b_0000", "b_0001", "c_0002", "t1_x", "x_t2", "run", "con", "é"]
    endings = [".nii", ".mha", ".nii.gz", ".dcm", ".zip", ""]
    contents = [b"", b"x" * 200, b"\0" * 128 + b"DICM" + bytes(range(80))]
    ways = [
        (CT, None),
        (TWO, None),
        (TWO, {"T1": "*t1*", "T2": "*t2*"}),
        (TWO, {"T1": "*1*", "T2": "*"}),
    ]
    for tree in range(60):
        top, made = tmp_path / str(tree), set()
        for _ in range(chance.randint(1, 10)):
            folders = chance.choices(names, k=chance.randint(0, 2))
            path = top.joinpath(*folders, chance.choice(names) + chance.choice(endings))
            if not path.exists() and not any(parent.is_file() for parent in path.parents):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(chance.choice(contents))
                made.add(path)
        for channels, patterns in ways:
            try:
                cohort = find_cases(top, channels=channels, patterns=patterns)
            except UserError:
                continue
            used = [file for case in cohort.cases for scan in case.scans for file in scan.files]
            told = {file for refusal in cohort.rejected for file in refusal.files}
            assert len(used) == len(set(used))
            assert len({*used, *told}) + sum(cohort.ignored.values()) == len(made)
            both = [one.id.casefold() for one in (*cohort.cases, *cohort.rejected)]
            assert len(both) == len(set(both))
