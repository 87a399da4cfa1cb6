"""Finding cases: names, channels, sub-folders, patterns, DICOM, and files that are no images."""

from __future__ import annotations

import os
import random
import re
import shutil
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


def ids(found: CaseList) -> list[str]:
    return [case.id for case in found.cases]


def files(case: Case, folder: Path) -> list[str]:
    return [Path(scan.files[0]).relative_to(folder).as_posix() for scan in case.scans]


def rejected(found: CaseList) -> dict[str, str]:
    return {one.id: one.reason for one in found.rejected}


# --- one channel


def test_each_image_is_a_case(tmp_path: Path) -> None:
    touch(tmp_path, "b/x.NII.GZ", "b/case_0000.nii", "a.mha", "c.d.nrrd", "scan_2023.nii.gz")
    found = find_cases(tmp_path, channels=CT)
    assert ids(found) == ["a", "b/case", "b/x", "c.d", "scan_2023"]
    assert found.rejected == ()
    assert [case.scans[0].ending for case in found.cases][:3] == [".mha", ".nii", ".nii.gz"]
    assert found.cases[0].size_bytes == 3
    assert found.cases[0].scans[0].files == (str(tmp_path / "a.mha"),)


def test_a_second_channel_is_not_for_a_model_of_one(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0001.nii.gz", "c_0000.nii.gz")
    found = find_cases(tmp_path, channels=CT)
    assert ids(found) == ["c"]
    assert list(rejected(found)) == ["a", "b_0001"]
    assert '--channels "CT=*"' in rejected(found)["b_0001"]
    everything = find_cases(tmp_path, channels=CT, patterns={"CT": "*"})
    assert ids(everything) == ["a_0000", "a_0001", "b_0001", "c_0000"]


def test_cases_whose_outputs_clash_are_rejected(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a.nii.gz", "z.nii.gz")
    found = find_cases(tmp_path, channels=CT)
    assert ids(found) == ["z"]
    (one,) = found.rejected
    assert (one.id, len(one.files)) == ("a", 2)


def test_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "a_0000.nii.gz", "a_0001.mha", "b_0000.nii.gz", "c.nrrd")
    assert ids(find_cases(tmp_path / "a_0000.nii.gz", channels=CT)) == ["a"]
    (case,) = find_cases(tmp_path / "a_0001.mha", channels=TWO).cases
    assert (case.id, files(case, tmp_path)) == ("a", ["a_0000.nii.gz", "a_0001.mha"])
    assert ids(find_cases(tmp_path / "c.nrrd", channels=TWO)) == ["c"]


@pytest.mark.parametrize(
    ("source", "channels", "patterns", "reason"),
    [
        ("no", CT, None, "no such file"),
        ("empty", CT, None, "it is empty"),
        ("ignored", CT, None, r"1 x macOS"),
        ("images", CT, {"CT": "*z*"}, r"no pattern of --channels.*patterns were CT=\*z\*"),
        ("images/b_0000.nii", TWO, None, "1 of 2 channels"),
        ("images/d.txt", CT, None, "neither an image"),
        ("images/.hidden", CT, None, "hidden"),
    ],
)
def test_inputs_without_a_case(
    tmp_path: Path, source: str, channels: list[str], patterns: dict | None, reason: str
) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "ignored/._a.nii", "images/b_0000.nii", "images/d.txt")
    touch(tmp_path, "images/.hidden")
    with pytest.raises(UserError, match=reason) as caught:
        find_cases(tmp_path / source, channels=channels, patterns=patterns)
    assert str(tmp_path / source) in str(caught.value)


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
    found = find_cases(tmp_path / "in", channels=CT)
    assert ids(found) == ["other/b", "z/a"]  # the real folder, not the link to it
    assert list(rejected(found)) == ["gone"]
    assert found.ignored == {"folder of results, or a link to a folder seen before": 2}


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
    found = find_cases(tmp_path, channels=CT)
    assert ids(found) == ["a"]
    assert "Permission denied" in rejected(found)["closed"]


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
        (("a.Slices",), "a.Slices_"),  # the second mask of a
        (("a.preview", "b.preview"), "a.preview/b.preview_"),
    ],
)
def test_ids_are_file_names_everywhere(parts: tuple[str, ...], expected: str) -> None:
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
    assert time.perf_counter() - start < 5


# --- several channels

PATTERNS = {"T1": "*_t1*", "T2": "*_t2*"}


@pytest.mark.parametrize(
    ("names", "expected", "note"),
    [
        (["a_0000.nii.gz", "a_0001.mha"], "a", ""),
        (["sub/a_0000.nii", "sub/a_0001.nii"], "sub/a", ""),
        (["one_file_of_4_axes.nii.gz"], "one_file_of_4_axes", ""),
        (["T1/a.nii.gz", "T2/a.nii.gz"], "a", "by sub-folders"),
        (["t1/a.nii.gz", "t2/a.mha"], "a", "by sub-folders"),
        (["x/T1.nii.gz", "x/T2.nii.gz"], "x", "by sub-folders"),
        (["T1.nii.gz", "T2.nii.gz"], "input", "by sub-folders"),
        (["x/T1/p.nii.gz", "x/T2/q.nii.gz"], "x", "files of different names"),
        (["T1/s/a.nii.gz", "T2/s/a.nii.gz"], "s/a", "by sub-folders"),
        (["T1/a_0000.nii.gz", "T2/a_0001.nii.gz"], "a", "by sub-folders"),
        (["T1/a/T1.nii.gz", "T2/a/T2.nii.gz"], "a", "by sub-folders"),
    ],
)
def test_scans_that_are_one_case(
    tmp_path: Path, names: list[str], expected: str, note: str
) -> None:
    folder = tmp_path / "input"
    touch(folder, *names)
    found = find_cases(folder, channels=TWO)
    assert found.rejected == ()
    assert (ids(found), files(found.cases[0], folder)) == ([expected], names)
    assert note in "; ".join(found.cases[0].notes)
    assert found.cases[0].size_bytes == 3 * len(names)


@pytest.mark.parametrize(
    ("names", "patterns", "case", "reason"),
    [
        (["b_0001.nii"], None, "b", r"T1 \(_0000\) is missing"),
        (["f/b_0000.nii"], None, "f/b", "T2 .* is missing"),
        (["T1/a.nii.gz"], None, "a", "T2 is missing: found T1/a.nii.gz"),
        (["T1/c.nii", "T1/c.mha", "T2/c.mha"], None, "c", "T1 is there more than once"),
        (["T1/d/T2.nii.gz"], None, "T1/d/T2", r"several channels \(T1, T2\)"),
        (["T2/e_0000.nii.gz"], None, "T2/e_0000", r"several channels \(T1, T2\)"),
        (["x/T1/p.nii", "x/T1/q.nii", "x/T2/r.nii"], None, "x", "T1 is there more than once"),
        (["carl_t1.nii"], PATTERNS, "carl", r"T2 \(\*_t2\*\) is missing: found carl_t1.nii"),
        (["e_t1.mha", "e_t1.nii", "e_t2.nii"], PATTERNS, "e", r"T1 \(\*_t1\*\) .* more than once"),
        (["eve_t1_t2.nii"], PATTERNS, "eve_t1_t2", "matches the patterns of T1 .* and T2"),
    ],
)
def test_scans_that_are_no_case(
    tmp_path: Path, names: list[str], patterns: dict | None, case: str, reason: str
) -> None:
    touch(tmp_path, *names, "zoe_t1_0000.nii", "zoe_t1_0001.nii", "zoe_t2_0001.nii")
    found = find_cases(tmp_path, channels=TWO, patterns=patterns)
    assert re.search(reason, rejected(found)[case])
    assert [one.files for one in found.rejected if one.id == case] == [
        tuple(str(tmp_path / name) for name in sorted(names))
    ]


@pytest.mark.parametrize("patterns", [None, {"T1": "*t1*", "T2": "*t2*"}])
def test_two_people_are_never_one_case(tmp_path: Path, patterns: dict | None) -> None:
    names = ("anna_t1.nii", "bob_t2.nii") if patterns else ("T1/anna.nii", "T2/bob.nii")
    touch(tmp_path, *names)
    found = find_cases(tmp_path, channels=TWO, patterns=patterns)
    assert found.cases == ()
    assert list(rejected(found)) == ["anna", "bob"]


# --- patterns


def test_patterns_are_read() -> None:
    read = parse_patterns(["t2=*t2*", " T1 = *t1*.nii.gz"], TWO)
    assert read == {"T1": "*t1*.nii.gz", "T2": "*t2*"}
    assert list(read) == TWO


@pytest.mark.parametrize(
    "arguments",
    [
        ["T1"],
        ["T1="],
        ["T1=*a", "T1=*b"],
        ["T1=*a", "t1=*b"],
        ["T1=*a", "T3=*b"],
        ["T1=*a"],
        ["T1=a/*", "T2=*"],
    ],
)
def test_wrong_patterns(arguments: list[str]) -> None:
    with pytest.raises(UserError, match="--channels"):
        parse_patterns(arguments, TWO)


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
    touch(tmp_path / "in", "p/mprage_t1.nii.gz", "p/tse_t2_x.nii.gz", "p/other.nii.gz")
    touch(tmp_path / "in", "q/r/T1.mha", "q/r/T2.mha", "t1.nii.gz", "t2.nii.gz")
    touch(tmp_path / "in", "many/anna_t1.nii.gz", "many/Anna_T2.nii")
    touch(tmp_path / "in", "many/bob_t1.nii.gz", "many/bob_t2.nii.gz")
    found = find_cases(tmp_path / "in", channels=TWO, patterns={"T1": "*t1*", "T2": "*t2*"})
    assert ids(found) == ["in", "many/Anna", "many/bob", "p", "q/r"]
    assert found.rejected == ()
    case = found.cases[3]
    assert files(case, tmp_path / "in") == ["p/mprage_t1.nii.gz", "p/tse_t2_x.nii.gz"]
    first, second = case.notes
    assert first == "channels by patterns: T1 = mprage_t1.nii.gz, T2 = tse_t2_x.nii.gz"
    assert "the only ones of their channels in the folder" in second
    assert len(found.cases[4].notes) == 1
    assert found.ignored == {"name that no pattern of --channels matches": 1}


# --- DICOM


def test_series_are_cases(tmp_path: Path) -> None:
    folder = tmp_path / "input"
    write_series(folder / "p1")
    write_series(folder / "p2/study", number=3, name=lambda z: f"a{z}")
    write_series(folder / "p2/study", number=4, name=lambda z: f"b{z}")
    write_series(folder / "p2/study", number=4, name=lambda z: f"c{z}", uid="1.2.3.4")
    write_object(folder / "p2/study", "sr", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    found = find_cases(folder, channels=CT)
    assert ids(found)[:2] == ["p1", "p2/study/series-3"]
    assert len(ids(found)) == 4
    assert all(one.startswith("p2/study/series-4-") for one in ids(found)[2:])
    assert found.ignored == {"DICOM Comprehensive SR": 1}
    assert found.cases[0].notes == ()
    assert found.cases[0].size_bytes == sum(f.stat().st_size for f in (folder / "p1").iterdir())
    assert "one of 3 DICOM series" in found.cases[1].notes[0]


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
    found = find_cases(folder, channels=CT)
    assert ids(found) == ["both/series-1", "both/series-2", "one"]
    assert found.cases[2].scans[0].archive == str(folder / "one.ZIP")
    assert ids(find_cases(folder / "one.ZIP", channels=CT)) == ["one"]


def test_bad_series_and_broken_files_are_rejected(tmp_path: Path) -> None:
    def gap(dataset, z):
        if z == 3:
            dataset.ImagePositionPatient = [-10.0, 20.0, 40.0]

    write_series(tmp_path / "gap", change=gap)
    write_series(tmp_path / "cut")
    (tmp_path / "cut/6.dcm").write_bytes((tmp_path / "cut/6.dcm").read_bytes()[:200])
    write_series(tmp_path / "end", name=lambda z: f"{z}.dcm")
    (tmp_path / "end/3.dcm").write_bytes(b"")
    touch(tmp_path, "none/x.dcm")
    found = find_cases(tmp_path, channels=CT)
    assert ids(found) == ["end"]
    assert "slices at its ends may be missing" in found.cases[0].notes[0]
    reasons = rejected(found)
    assert list(reasons) == ["cut", "cut/unreadable-dicom", "end/unreadable-dicom", "gap", "none"]
    assert "uneven: 2 to 6 mm" in reasons["gap"]
    assert "6.dcm it ends within its DICOM header" in reasons["cut/unreadable-dicom"]


def test_a_series_spread_over_folders_is_put_together(tmp_path: Path) -> None:
    for name in "AB":
        (tmp_path / "disk" / name).mkdir(parents=True)
    write_series(tmp_path / "disk", uid="1.2.3", name=lambda z: f"{'AB'[z // 2]}/{z}")
    found = find_cases(tmp_path, channels=CT)
    assert ids(found) == ["disk/series-3"]
    assert len(found.cases[0].scans[0].files) == 4
    assert "its files lie in 2 folders (disk/A, disk/B)" in found.cases[0].notes[0]


def test_copies_of_a_series_stay_apart(tmp_path: Path) -> None:
    write_series(tmp_path / "a", uid="1.2.3")
    write_series(tmp_path / "b", uid="1.2.3")
    found = find_cases(tmp_path, channels=CT)  # anonymisation gave both one SeriesInstanceUID
    assert ids(found) == ["a", "b"] and not found.cases[1].notes


@pytest.mark.parametrize("copy", ["a/again", "b", "b.zip"])
def test_a_copied_series_has_a_note(tmp_path: Path, copy: str) -> None:
    write_series(tmp_path / "a", number=1)
    write_series(tmp_path / "c", number=1)
    shutil.copytree(tmp_path / "a", tmp_path / copy.removesuffix(".zip"))
    if copy.endswith(".zip"):
        shutil.make_archive(str(tmp_path / "b"), "zip", tmp_path / "b")
        shutil.rmtree(tmp_path / "b")
    found = find_cases(tmp_path, channels=CT)
    assert len(found.cases) == 3
    assert ["probably a copy" in str(case.notes) for case in found.cases].count(True) == 1


def test_dicom_with_several_channels(tmp_path: Path) -> None:
    write_series(tmp_path / "p/T1")
    write_series(tmp_path / "p/T2")
    write_series(tmp_path / "q", number=1, description="Ax T1 mprage", name=lambda z: f"a{z}")
    write_series(tmp_path / "q", number=2, description="Ax T2 tse", name=lambda z: f"b{z}")
    write_series(tmp_path / "r/T1")
    write_series(tmp_path / "r/T2", slices=1, change=lambda d, z: delattr(d, "SliceThickness"))
    found = find_cases(tmp_path, channels=TWO)
    assert ids(found) == ["p"]
    assert list(rejected(found)) == ["q", "r"]  # once, whatever the number of series
    assert "series 2, Ax T2 tse, 4 files" in rejected(found)["q"]
    assert rejected(found)["r"].startswith("T2: series 3, axial, 1 file: ")
    found = find_cases(tmp_path, channels=TWO, patterns={"T1": "*t1*", "T2": "*t2*"})
    assert ids(found) == ["p", "q"]
    assert [scan.series[:8] for scan in found.cases[1].scans] == ["series 1", "series 2"]


def test_real_folders(shared: Path) -> None:
    medical = shared / "data" / "medical"
    found = find_cases(medical / "hippocrop_dicom", channels=["MR"])
    assert ids(found) == [f"Study{n}_HCropVolume" for n in ("1_13", "2_14", "3_11")]
    found = find_cases(medical / "Dataset004_Hippocampus" / "imagesTs", channels=["MR"])
    assert found.rejected == ()
    assert all(not case.id.endswith("_0000") for case in found.cases)


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
                found = find_cases(top, channels=channels, patterns=patterns)
            except UserError:
                continue
            used = [file for case in found.cases for scan in case.scans for file in scan.files]
            refused = {file for refusal in found.rejected for file in refusal.files}
            assert len(used) == len(set(used))
            assert len({*used, *refused}) + sum(found.ignored.values()) == len(made)
            both = [one.id.casefold() for one in (*found.cases, *found.rejected)]
            assert len(both) == len(set(both))
