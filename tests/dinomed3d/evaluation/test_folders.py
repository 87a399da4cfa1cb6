"""Folders of masks: pairs by name, labels and regions, agreement with nnU-Net, and cases that fail alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.evaluation.evaluate_predictions import compute_metrics
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

from dinomed3d.cli.main import main
from dinomed3d.evaluation.folders import Labels, evaluate, read_labels
from dinomed3d.runtime.errors import UserError
from tests.documented_keys import read_json

SPACING_XYZ = (0.5, 0.8, 3.0)


def write(path: Path, labels, *, origin=(0.0, 0.0, 0.0)):
    image = sitk.GetImageFromArray(np.asarray(labels, np.uint8))
    image.SetSpacing(SPACING_XYZ)
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def labels(seed):
    """Blobs of the labels 0 to 3; 3 is the ignore label of one test."""
    rng = np.random.default_rng(seed)
    image = sitk.GetImageFromArray(rng.normal(size=(6, 20, 24)))
    smooth = sitk.GetArrayFromImage(sitk.DiscreteGaussian(image, 4.0))
    return np.digitize(smooth, np.quantile(smooth, (0.5, 0.7, 0.9)))


@pytest.fixture
def folders(tmp_path):
    """Two cases, with a prediction that differs from the reference."""
    for number in range(2):
        truth = labels(number)
        write(tmp_path / "ref" / f"case{number}.nii.gz", truth)
        write(tmp_path / "pred" / f"case{number}.nii.gz", np.roll(truth, 1, axis=2))
    return tmp_path / "ref", tmp_path / "pred"


@pytest.mark.parametrize(
    ("chosen", "ignore"),
    [
        ({"one": (1,), "two": (2,), "three": (3,)}, None),
        ({"one": (1,), "two": (2,)}, 3),
        ({"whole": (1, 2, 3), "core": (2, 3), "inner": (3,)}, None),
    ],
)
def test_dice_is_that_of_nnunets_summary(folders, chosen, ignore):
    result = evaluate(*folders, labels=Labels(values=chosen, ignore=ignore))
    assert not result.problems and len(result.rows) == 2 * len(chosen)
    for row in result.rows:
        values = chosen[row["label"]]
        key = values if len(values) > 1 else values[0]
        files = [str(folder / f"{row['case']}.nii.gz") for folder in folders]
        theirs = compute_metrics(*files, SimpleITKIO(), [key], ignore_label=ignore)
        metrics = theirs["metrics"][key]
        assert row["dice"] == pytest.approx(metrics["Dice"], abs=1e-6)
        voxel_ml = np.prod(SPACING_XYZ) / 1000
        assert row["reference_ml"] == pytest.approx(metrics["n_ref"] * voxel_ml)
        assert row["prediction_ml"] == pytest.approx(metrics["n_pred"] * voxel_ml)


def test_spacing_is_that_of_the_files(tmp_path):
    truth = np.zeros((8, 10, 12))
    truth[2:6, 3:7, 4:8] = 1
    for axis, step_mm in enumerate(SPACING_XYZ[::-1]):
        write(tmp_path / "ref.nrrd", truth)
        write(tmp_path / "pred.nii.gz", np.roll(truth, 1, axis=axis))
        (row,) = evaluate(tmp_path / "ref.nrrd", tmp_path / "pred.nii.gz").rows
        assert row["dice"] == pytest.approx(0.75)
        assert row["hd95_mm"] == pytest.approx(step_mm)


def test_means_leave_out_cases_without_the_label(tmp_path):
    for number, value in enumerate((1, 2)):
        write(tmp_path / "ref" / f"{number}.nii.gz", np.full((2, 3, 4), value))
        write(tmp_path / "pred" / f"{number}.nii.gz", np.full((2, 3, 4), 1))
    means = evaluate(tmp_path / "ref", tmp_path / "pred").per_label()
    # label 1: right in one case, invented in the other; label 2: missed in the only case that has it
    assert means.loc["1", "cases"] == 2 and means.loc["1", "dice"] == pytest.approx(0.5)
    assert means.loc["2", "cases"] == 1 and means.loc["2", "dice"] == 0
    assert np.isnan(means.loc["2", "hd95_mm"]) and means.loc["mean", "dice"] == pytest.approx(0.25)


def test_one_bad_case_costs_only_itself(folders, capsys):
    reference, prediction = folders
    write(reference / "sub" / "missing.nii.gz", labels(2))
    write(prediction / "extra.nii.gz", labels(2))
    for name, change in {
        "shape": {"labels": labels(2)[:, :-1]},
        "moved": {"labels": labels(2), "origin": (1.0, 0.0, 0.0)},
        "strange": {"labels": np.where(labels(2) == 3, 9, 0)},
    }.items():
        write(reference / f"{name}.nii.gz", labels(2))
        write(prediction / f"{name}.nii.gz", **change)
    write(reference / "twice.nii.gz", labels(2))
    for ending in ("nii.gz", "nrrd"):
        write(prediction / f"twice.{ending}", labels(2))
    write(reference / "damaged.nii.gz", labels(2))
    (prediction / "damaged.nii.gz").write_bytes(b"no image")
    dataset = reference.parent / "dataset.json"
    named = {"background": 0, "a": 1, "b": 2, "c": 3}
    dataset.write_text(json.dumps({"labels": named}))

    result = evaluate(reference, prediction, labels=read_labels(dataset))
    assert {row["case"] for row in result.rows} == {"case0", "case1"}
    expected = {
        "damaged": "damaged.nii.gz",
        "extra": f"no mask in {reference}",
        "moved": "must lie on the grid",
        "shape": "must have the shape",
        "strange": r"does not name: [9]",
        "sub/missing": f"no mask in {prediction}",
        "twice": "has 2 masks",
    }
    assert list(result.problems) == list(expected)
    for case, part in expected.items():
        assert part in result.problems[case]

    command = ["evaluate", str(reference), str(prediction), "--labels", str(dataset)]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert "2 cases evaluated" in printed and printed.count("not evaluated: ") == 7
    rows = (prediction / "evaluation.csv").read_text().splitlines()
    assert rows[0] == "case,label,dice,hd95_mm,surface_dice,reference_ml,prediction_ml"
    assert len(rows) == 7 and rows[1].startswith("case0,a,0.")
    assert main([*command, "--json"]) == 1
    content = read_json(capsys.readouterr().out)
    scores = [["" if v is None else str(v) for v in row.values()] for row in content["cases"]]
    assert [list(content["cases"][0]), *scores] == [row.split(",") for row in rows]
    assert content["not_evaluated"] == result.problems
    assert [row["label"] for row in content["means"]][-1] == "mean"
    assert isinstance(content["means"][0]["cases"], int) and content["means"][-1]["cases"] is None


def test_other_files_of_a_prediction_are_no_cases(folders, capsys):
    prediction = folders[1]
    beside = [
        "case0.labels/a",
        "case0.slices",
        "case0.edited1",
        "case0.slices.edited2",
        "case1.earlier1",
    ]
    for name in beside:
        write(prediction / f"{name}.nii.gz", labels(5))
    for case in ("case0", "case1"):
        (prediction / f"{case}.json").write_text("{}")
    assert main(["evaluate", *map(str, folders), "--json"]) == 0
    content = read_json(capsys.readouterr().out)
    assert sorted(content["left_out"]) == sorted(str(prediction / f"{n}.nii.gz") for n in beside)
    assert main(["evaluate", *map(str, folders)]) == 0
    assert "left out: 5 files that a prediction writes next to its masks" in capsys.readouterr().out
    (prediction / "case1.json").unlink()  # without a record it may be anybody's mask
    assert main(["evaluate", *map(str, folders)]) == 1
    assert "case1.earlier1: has no mask" in capsys.readouterr().out


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names of bytes are of Linux")
def test_names_that_are_not_utf8(folders, capsys, tmp_path):
    scored, alone = (os.fsdecode(name) for name in (b"m\xfcller", b"na\xefve"))
    for folder in folders:
        (folder / "case0.nii.gz").rename(folder / f"{scored}.nii.gz")
    (folders[0] / "case1.nii.gz").rename(folders[0] / f"{alone}.nii.gz")
    command = ["evaluate", *map(str, folders), "-o", str(tmp_path / os.fsdecode(b"\xfc.csv"))]
    assert main(command) == 1
    printed = capsys.readouterr().out
    assert all(name in printed for name in (r"m\udcfcller ", r": na\udcefve: ", r"/\udcfc.csv"))
    rows = Path(command[-1]).read_bytes().decode("utf-8").splitlines()[1:]
    assert len(rows) == 3 and all(row.startswith(r"m\udcfcller,") for row in rows)
    assert main([*command, "--json"]) == 1
    content = read_json(capsys.readouterr().out)
    assert {row["case"] for row in content["cases"]} == {scored}
    assert set(content["not_evaluated"]) == {alone, "case1"} and content["table"] == command[-1]


def test_a_label_may_be_called_mean(folders):
    result = evaluate(*folders, labels=Labels(values={"mean": (1,), "b": (2,), "c": (3,)}))
    scores = result.per_case().groupby("label", sort=False)["dice"].mean()
    table = result.per_label()
    assert list(table.index) == ["mean", "b", "c", "mean"]
    assert list(table["dice"][:3]) == pytest.approx(list(scores))
    assert table["dice"].iloc[3] == pytest.approx(scores.mean())


def test_a_case_without_anything_is_evaluated(tmp_path, capsys):
    for folder in ("ref", "pred"):
        write(tmp_path / folder / "a.nii.gz", np.zeros((3, 4, 5)))
    assert main(["evaluate", str(tmp_path / "ref"), str(tmp_path / "pred")]) == 0
    assert "1 case evaluated; no table is written" in capsys.readouterr().out


def test_the_command_with_nothing_wrong(folders, capsys, tmp_path):
    out = tmp_path / "scores.csv"
    assert main(["evaluate", *map(str, folders), "--tolerance", "2", "-o", str(out)]) == 0
    assert "surface Dice at 2 mm" in capsys.readouterr().out and out.is_file()


def test_a_folder_of_images_is_named_and_the_earlier_table_stays(folders, capsys, tmp_path):
    images, out = tmp_path / "images", tmp_path / "scores.csv"
    images.mkdir()
    (images / "case0_0000.nii.gz").write_bytes((folders[0] / "case0.nii.gz").read_bytes())
    out.write_text("scores of yesterday")
    command = ["evaluate", str(images), str(folders[1]), "-o", str(out)]
    assert main(command) == 1
    assert "no table" in (printed := capsys.readouterr().out) and "_0000 " in printed
    assert main([*command, "--json"]) == 1
    assert read_json(capsys.readouterr().out)["table"] is None
    assert out.read_text() == "scores of yesterday"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        ("{", "dataset.json"),
        ('{"labels": 3}', "dataset.json"),
        ('{"labels": {"background": 0, "ignore": 2}}', "no label"),
    ],
)
def test_labels_that_are_none(content, part, tmp_path):
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(UserError, match=part):
        read_labels(tmp_path / "dataset.json")


def test_regions_and_the_ignore_label(tmp_path):
    entries = {"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": entries}))
    assert read_labels(tmp_path / "dataset.json") == Labels(
        values={"whole": (1, 2), "core": (2,)}, ignore=3
    )


def test_arguments_that_cannot_be_used(folders, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, part in (
        ((folders[0], tmp_path / "none"), "PREDICTION"),
        ((tmp_path / "empty", folders[1]), "REFERENCE"),
    ):
        with pytest.raises(UserError, match=part):
            evaluate(*arguments)
    with pytest.raises(UserError, match="--tolerance"):
        evaluate(*folders, tolerance_mm=-1)
