"""The benchmark of artefacts on the smallest models: what it writes, keeps and refuses."""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
import pytest
import SimpleITK as sitk

from tests import ROOT

sys.path.insert(0, str(ROOT / "examples" / "benchmarks"))

import artifacts as benchmark  # noqa: E402
import artifacts_report as report  # noqa: E402

from dinomed3d.runtime.errors import UserError  # noqa: E402
from tests.dinomed3d.inference.cohort.runs import write_scan  # noqa: E402
from tests.dinomed3d.inference.models.write_model import write_model  # noqa: E402

GRID = np.diag([1.0, 1.0, 1.3, 1.0])


@pytest.fixture
def words(tmp_path):
    """The command line for two models and two cases, with noise alone."""
    for number in range(2):
        image = write_scan(tmp_path / "images" / f"case{number}_0000.nii.gz", number, affine=GRID)
        found = sitk.ReadImage(str(image))
        truth = sitk.GetImageFromArray((sitk.GetArrayFromImage(found) > 60).astype(np.uint8))
        truth.CopyInformation(found)
        (tmp_path / "labels").mkdir(exist_ok=True)
        sitk.WriteImage(truth, str(tmp_path / "labels" / f"case{number}.nii.gz"))
    models = [f"{name}={write_model(tmp_path / name)}" for name in ("ours", "stock")]
    folders = [tmp_path / "images", tmp_path / "labels", "--work", tmp_path / "work"]
    chosen = ["--models", *models, "--artifacts", "noise", "--device", "cpu", "--no-mirroring"]
    return [str(word) for word in (*folders, *chosen)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_runs_is_continued_and_refuses_to_mix(words, tmp_path, monkeypatch, capsys):
    work = tmp_path / "work"
    monkeypatch.setattr(sys, "argv", ["artifacts.py", *words])
    benchmark.main()
    assert "noise severe" in capsys.readouterr().out
    content = json.loads((work / "results.json").read_text())
    rows = {(row["model"], row["artifact"], row["strength"]): row for row in content["rows"]}
    kinds = [("clean", 0), ("noise", 1), ("noise", 2), ("noise", 3)]
    assert set(rows) == {(model, *kind) for model in ("ours", "stock") for kind in kinds}
    assert rows["ours", "noise", 3]["value"] == 0.1
    for kind in kinds:  # two copies of one model
        assert rows[("ours", *kind)]["scores"] == rows[("stock", *kind)]["scores"]
        assert {s["case"] for s in rows[("ours", *kind)]["scores"]} == {"case0", "case1"}
    clean, noisy = (work / "images" / name / "case0_0000.nii.gz" for name in ("clean-0", "noise-2"))
    source = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "images" / clean.name)))
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(clean))), source)
    assert not np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(noisy))), source)
    assert (work / "results.png").read_bytes().startswith(b"\x89PNG")

    # a stopped run: one set of scores and one mask are missing, the rest is kept
    (work / "scores" / "stock" / "noise-2.json").unlink()
    shutil.rmtree(work / "predictions" / "ours")
    seen = []
    monkeypatch.setattr(
        benchmark, "predict", lambda spec, show: seen.append(spec) or PREDICT(spec, show)
    )
    benchmark.main()
    assert [spec.out for spec in seen] == [str(work / "predictions" / "stock" / "noise-2")]
    assert "1 to predict" not in (said := capsys.readouterr().err) and "0 to predict" in said
    assert json.loads((work / "results.json").read_text()) == content

    with pytest.raises(UserError, match="seed"):
        benchmark.run(benchmark.parse([*words, "--seed", "1"]))
    (tmp_path / "labels" / "case1.nii.gz").unlink()
    with pytest.raises(UserError, match="case1"):
        benchmark.run(benchmark.parse(words))


PREDICT = benchmark.predict


def row(model, strength, scores):
    names = ("case", "label", "dice", "hd95_mm", "surface_dice")
    kind = "noise" if strength else "clean"
    scores = [dict(zip(names, score, strict=True)) for score in scores]
    return {"model": model, "artifact": kind, "strength": strength, "scores": scores}


def test_the_table_has_paired_differences_and_counts_what_was_missed():
    rows = [
        row("ours", 0, [("a", "x", 0.8, 1.0, 0.9), ("a", "y", 0.6, 3.0, 0.7), ("b", "x", 0.9, 1, 1)]),
        row("cnn", 0, [("a", "x", 0.6, 1.0, 0.9), ("a", "y", 0.6, 3.0, 0.7), ("b", "x", 0, None, 0)]),
        row("ours", 2, [("a", "x", 0.5, 1.0, 0.9)]),
    ]  # fmt: skip
    _, _, clean, noise = report.markdown(rows).splitlines()
    assert [cell.strip() for cell in clean.strip("|").split("|")] == [
        "clean", "–", "0.800", "1.50", "0.900", "0", "0.300", "2.00", "0.400", "1", "-0.500 ± 0.400",
    ]  # fmt: skip
    assert noise.startswith("| noise moderate | 0.05 | 0.500 |") and noise.count("–") == 5
