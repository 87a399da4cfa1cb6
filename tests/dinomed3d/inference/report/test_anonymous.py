"""Anonymous reports: no name anywhere, the same pseudonym each time, and a table for those who may know."""

import base64
import csv
import io
import json
import re
import zipfile
from pathlib import Path

import pytest

from dinomed3d.cli.main import main
from dinomed3d.inference.case import Case, CaseList, Scan
from dinomed3d.inference.cohort.run import anonymizer
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.discovery.case_ids import reject_clashes
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.dicom.dicom_series import write_series
from tests.dinomed3d.inference.models.write_model import write_model

NAMES = (
    "Müller",
    "Hans",
    "19700203",
    "Meier",
    "Eva",
    "4711",
    "Schädel",
    "Li-Na",
    "IM0007",
    "Kontrolle",
)


def names_in(text):
    return [name for name in NAMES if name.casefold() in text.casefold()]


@pytest.fixture
def hidden(tmp_path):
    """The names of a cohort of two cases."""
    spec = PredictSpec(source="/srv/in", out=str(tmp_path), model="/home/dr_meier/model.zip")
    files = (
        "/srv/in/Müller^Hans 19700203/IM0007",
        "/srv/in/Müller^Hans 19700203/IM0008 Kontrolle.dcm",
    )
    series = Scan(
        files=files, ending=".dcm", series="series 4711, Schädel nativ, 2 files", uid="1.2.3"
    )
    other = Scan(files=("/srv/in/Meier_Eva.nii.gz",), ending=".nii.gz")
    cases = Case(id="Müller^Hans 19700203", scans=(series,)), Case(id="Meier_Eva", scans=(other,))
    return anonymizer(spec, CaseList(cases=cases, left_out={"Li-Na/seg.nii.gz": "a label image"}))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (
            "/srv/in/Müller^Hans 19700203/IM0007: gaps are uneven: 2.5 to 5 mm",
            "]: gaps are uneven: 2.5 to 5 mm",
        ),
        ("its mask: /srv/out/Meier_Eva.nii.gz: its qform", "its mask: [name]: its qform"),
        ("series 4711, Schädel nativ, 2 files: slices of several orientations", "several"),
        ("gaps between its 12 slices, 5 between IM0007 and IM0008 Kontrolle.dcm", "its 12 slices"),
        ("differ in AcquisitionTime 101010.2 and 111111 and 1.2.840.113619.2.1", "AcquisitionTime"),
        ("two scans would make one mask: meier_eva and Meier Eva", "two scans would make one mask"),
        ("unexpected ValueError in step 'read': C:\\Users\\Eva\\x is bad", "step 'read'"),
        (
            "-o OUT: needs 12.5 GiB of memory even in 16 parts, 35 x 512 x 512 voxels",
            "35 x 512 x 512",
        ),
        ("liver: 1500 ml, in training 900 to 2000 ml; 1/4 of it, 3 ml/s", "1/4 of it, 3 ml/s"),
        ("Li-Na, (Schädel)", ""),
        (
            "Eva.mgz: .mgz is not read: (WriteImage(ReadImage('Eva.mgz'), 'Eva.nii.gz'))",
            "[name]: .mgz is not read: (WriteImage(ReadImage('[name]'), '[name]'))",
        ),
    ],
)
def test_texts_lose_names_and_keep_what_they_say(hidden, text, kept):
    for case in ("Müller^Hans 19700203", "Meier_Eva", None):
        found = hidden.text(text, case)
        assert not names_in(found), found
        assert not re.search(r"\d{6}|(\d+\.){3}", found)
        assert kept in found


@pytest.mark.parametrize("place", [".", "..", "1", "in", "scans", "./in", "a/in", "tra"])
def test_short_paths_of_the_command_change_no_words_and_numbers(tmp_path, place):
    spec = PredictSpec(source=place, out=str(tmp_path), model="m", anonymous=True)
    names = anonymizer(spec, CaseList(cases=()))
    text = (
        "most scans of 1 run, 12.5 mm, in training 1.25 to 3.1 mm (sagittal): low certainty: 0.59"
    )
    assert names.text(text) == text


def test_bare_folders_and_longer_names_of_the_command(tmp_path):
    spec = PredictSpec(source="/srv/in", out=str(tmp_path), model="./Meier/", anonymous=True)
    names = anonymizer(spec, CaseList(cases=()))
    assert names.text("model ./Meier: no; './Meier/a'") == "model MODEL: no; '[name]'"
    assert names.text("-i /srv/in2: is not there") == "-i [name]: is not there"
    bare = anonymizer(PredictSpec(source="Meier", out=str(tmp_path), model="m"), CaseList(cases=()))
    assert bare.text("-i Meier: no scans; Meiers") == "-i IN: no scans; Meiers"


def test_paths_of_the_command_are_named_by_their_options(hidden, tmp_path):
    assert hidden.text(f"-o {tmp_path}: is full") == "-o OUT: is full"
    assert hidden.text("model /home/dr_meier/model.zip: no") == "model MODEL: no"


def test_endings_of_ignored_files_may_be_names(hidden):
    counts = hidden.ignored({"format (.mgz)": 1, "format (.Curie)": 2, "format (.Planck)": 3})
    assert counts == {"format (.mgz)": 1, "format ([name])": 5}


def test_nothing_of_a_record_or_run_is_passed_on_unseen(hidden):
    case = "Müller^Hans 19700203"
    nasty = "Hans Müller, IM0007"
    record = {
        "case": case,
        "status": "done",
        "reason": nasty,
        "inputs": [{"files": [nasty], "series": nasty}],
        "mask": {"file": f"{case}.nii.gz"},
        "files": [f"{case}.png"],
        **{key: [nasty] for key in ("flags", "notes", "result_notes")},
        "labels": {"liver": {"voxels": 3}},
        "whatever comes later": nasty,
    }
    shown = hidden.record(record)
    assert shown.pop("stored_as") == case  # for the preview alone; it is not written
    assert not names_in(json.dumps(shown, ensure_ascii=False))
    for key in ("flags", "notes", "result_notes"):
        assert shown[key] == ["[name] [name], [name]"]
    assert shown["labels"] == record["labels"] and shown["status"] == "done"
    run = {
        "model": {"source": nasty, "hub": nasty, "hash": "abc"},
        "spec": {"source": nasty, "exclude": [nasty], "step_size": 0.5, "localizer": nasty},
        "left_out": {nasty: f"a label image like {nasty}"},
        "ignored": {f"of {nasty}": 2},
        "missing": [case],
        "started": "now",
        "whatever comes later": nasty,
    }
    shown = hidden.run(run)
    assert not names_in(json.dumps(shown, ensure_ascii=False))
    assert (shown["spec"], shown["model"]) == ({"step_size": 0.5}, {"hash": "abc"})
    assert shown["started"] == "now" and shown["missing"] == [hidden.name(case)]


def words(tmp_path, model, *more):
    fixed = ["predict", "-i", tmp_path / "in", "-o", tmp_path / "out", "-m", model]
    return [str(word) for word in (*fixed, "--engine", "threads", "--device", "cpu", *more)]


def test_a_run_says_no_name_and_is_found_again(tmp_path, capsys):
    model = write_model(tmp_path)
    write_scan(tmp_path / "in" / "Müller^Hans 19700203" / "Schädel.nii.gz")
    broken = tmp_path / "in" / "Meier_Eva.nii.gz"
    broken.write_bytes(b"cut")
    out = tmp_path / "out"
    assert main(words(tmp_path, model, "--anonymous")) == 1
    printed = capsys.readouterr()
    reports = {
        n: (out / n).read_text(encoding="utf-8") for n in ("report.html", "report.csv", "run.json")
    }
    for text in (printed.err, printed.out.replace(str(out), ""), *reports.values()):
        assert not names_in(text), text
    assert str(tmp_path) not in "".join(reports.values())
    # everything else has its name, and the table leads to it
    assert (out / "Müller^Hans 19700203" / "Schädel.nii.gz").is_file()
    with (out / "pseudonyms.csv").open(encoding="utf-8", newline="") as stream:
        cases = {row["pseudonym"]: row["case"] for row in csv.DictReader(stream)}
    assert sorted(cases.values()) == ["Meier_Eva", "Müller^Hans 19700203/Schädel"]
    rows = {row["case"]: row for row in csv.DictReader(io.StringIO(reports["report.csv"]))}
    assert rows.keys() == cases.keys()
    done, failed = sorted(rows, key=lambda name: rows[name]["status"])
    assert (
        cases[failed] == "Meier_Eva"
        and f"failed: {failed}: " in printed.out
        and done in printed.err
    )
    picture = (out / "Müller^Hans 19700203" / "Schädel.png").read_bytes()
    assert base64.b64encode(picture).decode() in reports["report.html"]
    # the same pseudonyms later, with more cases; what had failed is known under its pseudonym
    write_scan(tmp_path / "in" / "Abel.nii.gz", 3)
    assert main(words(tmp_path, model, "--anonymous")) == 3
    assert f"failed before: {failed}: " in capsys.readouterr().out
    again = (out / "pseudonyms.csv").read_text(encoding="utf-8")
    assert all(f"{name}," in again for name in cases) and len(again.splitlines()) == 4
    # without the option names are back, and nothing is predicted again
    assert main(words(tmp_path, model)) == 3
    assert "2 done earlier" in capsys.readouterr().err
    assert names_in((out / "report.html").read_text(encoding="utf-8"))


@pytest.mark.parametrize("packed", [False, True])
def test_what_a_rejected_series_is_called_is_hidden_too(tmp_path, capsys, packed):
    """Why a series is refused begins with its description, and names its slices."""
    folder = tmp_path / "in" / "a" if not packed else tmp_path / "loose"
    uneven = [0, 2, 4, 8, 10, 12]

    def change(header, z):
        header.ImagePositionPatient = [0, 0, uneven[z]]

    name = (lambda z: f"Li-Na {z}") if packed else (lambda z: f"{z}")
    write_series(folder, slices=6, description="Meier Eva Kontrolle", change=change, name=name)
    if packed:
        (tmp_path / "in").mkdir()
        with zipfile.ZipFile(tmp_path / "in" / "a.zip", "w") as archive:
            for path in folder.iterdir():
                archive.write(path, f"Hans/{path.name}")
    model, out = write_model(tmp_path), tmp_path / "out"
    assert main(words(tmp_path, model, "--anonymous")) == 1
    printed = capsys.readouterr()
    reports = [(out / n).read_text("utf-8") for n in ("report.html", "report.csv", "run.json")]
    for text in (printed.err, printed.out, *reports):
        assert not names_in(text.replace(str(tmp_path), "")), text
    assert "gap" in reports[1]  # why it was refused
    assert main(words(tmp_path, model)) == 3
    assert names_in(capsys.readouterr().out)


def test_two_series_of_one_name_are_hidden_too(tmp_path):
    """Cases that clash are refused for the names of both."""
    files = ("/srv/in/a/1", "/srv/in/a/2")
    series = Scan(files=files, ending=".dcm", series="series 4711, Schädel, 2 files", uid="1.2.3")
    cases = [Case(id=name, scans=(series,)) for name in ("a", "A")]
    _, (refused,) = reject_clashes(cases, [])
    spec = PredictSpec(source="/srv/in", out=str(tmp_path), model="m")
    known = anonymizer(spec, CaseList(cases=(), rejected=(refused,)))
    assert not names_in(known.text("series 4711, Schädel, 2 files: no grid", refused.id))


def test_another_key_gives_other_pseudonyms_and_one_needs_it(tmp_path):
    named = {}
    for folder in ("a", "b", "a"):
        out = tmp_path / folder
        out.mkdir(exist_ok=True)
        spec = PredictSpec(source="in", out=str(out), model="m")
        name = anonymizer(spec, CaseList(cases=())).name("Meier_Eva")
        assert re.fullmatch("case-[a-z2-7]{10}", name)
        assert named.setdefault(folder, name) == name
    assert named["a"] != named["b"]
    assert len(Path(tmp_path / "a" / ".pseudonym-key").read_bytes()) == 64


def test_errors_that_end_a_run_name_nobody(tmp_path, capsys):
    model = write_model(tmp_path)
    write_scan(tmp_path / "in" / "Meier_Eva.nii.gz")
    assert main(words(tmp_path, model, "--anonymous")) == 0
    capsys.readouterr()
    assert main(words(tmp_path, model, "--anonymous", "--step-size", "0.9")) == 2  # other settings
    printed = capsys.readouterr().err
    assert "step_size" in printed and not names_in(printed)
