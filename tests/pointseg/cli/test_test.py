"""pointseg-test: what it prints, how it ends."""

from __future__ import annotations

import json

import pytest

from dinomed3d.runtime.hardware import device as hardware
from pointseg.cli.test import main
from pointseg.evaluation import evaluate as engine
from tests.documented_keys import read_json
from tests.pointseg.evaluation.answers import ByColor, Clouds, colored, trained


@pytest.fixture
def scenes(monkeypatch):
    """A model that knows the answers, and a dataset in place of any that is asked for."""
    held = {"test": {"a": colored([0, 1, 2], truth=[0, 1, 1])}, "blank": {"b": colored([0])}}
    monkeypatch.setattr(engine, "load_model", lambda path, device, **_: (ByColor(), trained()))
    monkeypatch.setattr("pointseg.datasets.open_dataset", lambda *_, **__: Clouds(held))
    return held


def run(tmp_path, *arguments):
    return main(["-m", str(tmp_path / "best.pt"), "--dataset", "synthetic", *map(str, arguments)])


def test_a_table_and_both_means(tmp_path, scenes, capsys):
    assert run(tmp_path, "--pictures", 0) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert lines[0].split() == ["class", "IoU", "recall", "points"]
    assert lines[1].split() == ["floor", "100.00", "100.00", "134"]
    assert any(line.startswith("test_point_miou 0.5") for line in lines)
    assert any(line.startswith("structure: 75.") for line in lines)  # a group of classes
    assert lines[-1] == f"1 scenes, 400 points; results in {tmp_path / 'test'}"
    assert printed.err == "[1/1] test/a\n"  # no terminal, no bar
    metrics = json.loads((tmp_path / "test" / "metrics.json").read_text(encoding="utf-8"))
    assert run(tmp_path, "--pictures", 0, "--json") == 0
    found = read_json(capsys.readouterr().out)
    assert metrics.keys() <= found.keys() and found["results"] == str(tmp_path / "test")
    assert found["confusion"]["names"][0] == "floor" and found["confusion"]["matrix"][0][0] == 134


def test_options_reach_the_protocol(tmp_path, scenes, monkeypatch):
    monkeypatch.setattr(hardware, "has_native_bfloat16", lambda kind: True)
    out = tmp_path / "elsewhere"
    options = (
        "--tta",
        "nuscenes",
        "--max-points",
        123,
        "--margin",
        0.5,
        "--precision",
        "bfloat16",
    )
    assert run(tmp_path, "-o", out, "--pictures", 0, *options) == 0
    protocol = json.loads((out / "metrics.json").read_text())["protocol"]
    assert len(protocol["tta"]) == 10
    assert protocol["max_points"] == 123 and protocol["margin_m"] == 0.5
    assert protocol["precision"] == "bfloat16"
    assert run(tmp_path, "-o", out, "--pictures", 0, "--single-pass", "--split", "test") == 0
    protocol = json.loads((out / "metrics.json").read_text())["protocol"]
    assert protocol["single_pass"] and len(protocol["tta"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--split", "lost"), "no split 'lost'"),
        (("--precision", "float16", "--device", "cpu"), "no instructions for it"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path, scenes, capsys, options, message):
    assert run(tmp_path, *options) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert printed.err.startswith("pointseg-test: ") and not printed.out


def test_finished_tests_are_merged(tmp_path, scenes, capsys):
    scenes["more"] = {"c": colored([1], truth=[1])}
    for split in ("test", "more"):
        assert run(tmp_path, "--split", split, "--pictures", 0, "-o", tmp_path / split) == 0
    capsys.readouterr()
    tests = ["--merge", str(tmp_path / "test"), str(tmp_path / "more")]
    assert main([*tests, "-o", str(tmp_path / "sum")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == f"2 scenes, 800 points; results in {tmp_path / 'sum'}"
    assert (tmp_path / "sum" / "metrics.json").is_file()
    assert main(tests) == 2
    assert "name a folder for the merged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-m", "best.pt"], "arguments are required: --dataset"),
        ([], "arguments are required: --model, --dataset"),
        (["--merge", "a", "b", "-m", "best.pt"], "--merge"),
    ],
)
def test_a_test_or_a_sum(words, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and message in capsys.readouterr().err
