"""The verbs predict, package and inspect, as they are typed."""

import json
from pathlib import Path

import pytest

from dinomed3d.cli.main import main
from dinomed3d.cli.verbs.predict import parse_shard
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model
from tests.documented_keys import read_json


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path)


@pytest.fixture
def scans(tmp_path):
    for number in range(2):
        write_scan(tmp_path / "in" / f"scan{number}.nii.gz", number)
    return tmp_path / "in"


def words(scans, model, *more):
    out = scans.parent / "out"
    fixed = ["predict", "-i", scans, "-o", out, "-m", model, "--engine", "threads", *more]
    return [str(word) for word in fixed]


def test_predict_package_and_inspect(scans, model, tmp_path, capsys):
    assert main(["package", str(model), "-o", str(tmp_path / "model.zip")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "model.zip")
    assert main(["inspect", str(tmp_path / "model.zip")]) == 0
    table = capsys.readouterr().out
    assert "nnUNetTrainer" in table and "3d_fullres" in table and "sha256" not in table
    assert main(["inspect", str(model), "--json"]) == 0
    content = read_json(capsys.readouterr().out)
    assert main(words(scans, tmp_path / "model.zip", "--device", "cpu")) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("2 cases done, 0 failed; report: ")
    assert "2 cases found" in printed.err and "[2/2] scan1: " in printed.err
    record = json.loads((scans.parent / "out" / "scan0.json").read_text())
    assert record["model"]["hash"] == content["hash"]
    # the folder is the same model as the package made of it: nothing is done again
    assert main(words(scans, model, "--device", "cpu", "--json")) == 0
    printed = capsys.readouterr()
    assert "2 done earlier and verified" in printed.err
    assert read_json(printed.out)["done"] == ["scan0", "scan1"]


def test_one_bad_case_is_exit_code_1(scans, model, capsys):
    (scans / "bad.nii.gz").write_bytes(b"nothing")
    (scans / "notes.txt").write_text("")
    assert main(words(scans, model)) == 1
    printed = capsys.readouterr()
    assert "2 cases done, 1 failed" in printed.out and "failed: bad: " in printed.out
    assert "ignored: 1 " in printed.err and "FAILED" in printed.err
    assert main(words(scans, model)) == 3  # nothing that is new
    assert "failed before: bad: " in capsys.readouterr().out
    (scans / "worse.nii.gz").write_bytes(b"nothing")
    assert main(words(scans, model)) == 1
    printed = capsys.readouterr().out
    assert "2 failed (1 of them in an earlier run already)" in printed
    assert "failed: worse: " in printed and "failed before: bad: " in printed


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--step-size", "2"], "--step-size"),
        (["--shard", "3"], "--shard must be I/N"),
        (["--channels", "T9=*"], "T9"),
        (["-f", "7"], "7"),
        (["-i", "/nowhere"], "no such file or folder"),
        (["-m", "/nowhere"], "/nowhere"),
        (["--device", "mps"], "--device mps"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(scans, model, more, message, capsys):
    assert main(words(scans, model, *more)) == 2
    printed = capsys.readouterr()
    *before, line = printed.err.strip().splitlines()
    assert (
        not before or more[0] == "--device"
    )  # which the worker looks at, after the cases are found
    assert line.startswith("dinomed3d predict: ") and message in line and not printed.out


def test_channels_by_patterns(tmp_path, capsys):
    model = write_model(tmp_path, channels=("T1", "FLAIR"))
    for kind in ("t1", "flair"):
        for number in range(2):
            write_scan(tmp_path / "in" / f"p{number}_{kind}_x.nii.gz", number)
    assert main(words(tmp_path / "in", model, "--channels", "T1=*_t1*", "FLAIR=*_flair*")) == 0
    assert "2 cases done" in capsys.readouterr().out


def test_interrupted_is_exit_code_130(scans, model, monkeypatch, capsys):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("dinomed3d.inference.cohort.worker.case_prediction.segment", stop)
    assert main(words(scans, model)) == 130
    assert capsys.readouterr().err.strip().splitlines()[-1] == "dinomed3d predict: interrupted"
    assert Path(scans.parent / "out" / "report.html").is_file()


def test_shard():
    assert parse_shard("2/8") == (2, 8)
    for wrong in ("2", "/8", "2/", "a/b", "-1/2"):
        with pytest.raises(UserError, match="--shard must be I/N"):
            parse_shard(wrong)
