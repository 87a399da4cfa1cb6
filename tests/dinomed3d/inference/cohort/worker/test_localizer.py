"""Runs in which a coarse model finds the region that is predicted."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker.localizer import Localizer
from dinomed3d.inference.nnunet.region import Region
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model

SHAPE = (18, 20, 24)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run without a localizer, and the coarse model."""
    folder = tmp_path_factory.mktemp("localizer")
    write_scan(folder / "in" / "a.nii.gz")
    spec = PredictSpec(
        source=str(folder / "in"),
        out=str(folder / "out"),
        model=str(write_model(folder / "fine")),
        engine="threads",
        device="cpu",
        mirroring=False,
    )
    predict(spec, lambda event: None)
    return spec, write_model(folder / "coarse", "anisotropic")


def run(runs, out, **changes):
    spec, coarse = runs
    return predict(
        replace(spec, out=str(out), localizer=str(coarse), **changes), lambda event: None
    )


def mask(out):
    return np.asarray(nib.load(Path(out) / "a.nii.gz").dataobj).T


def record(out):
    return json.loads((Path(out) / "a.json").read_text())


def test_a_region_of_the_whole_volume_changes_nothing(runs, tmp_path):
    run(runs, tmp_path, localizer_margin_mm=1000.0)
    assert np.array_equal(mask(tmp_path), mask(runs[0].out))
    assert record(tmp_path)["region"]["share"] == 1
    assert not any("localizer" in flag for flag in record(tmp_path)["flags"])
    assert "region" not in record(runs[0].out)


def test_the_mask_in_the_region_is_that_of_the_whole_volume(runs, tmp_path, monkeypatch):
    box = (slice(3, 15), slice(0, 14), slice(6, 17))
    monkeypatch.setattr(Localizer, "find", lambda *_, **__: Region(box=box, shape=SHAPE))
    run(runs, tmp_path)
    expected = np.zeros_like(mask(runs[0].out))
    expected[box] = mask(runs[0].out)[box]
    assert np.array_equal(mask(tmp_path), expected) and expected.any()
    found = record(tmp_path)
    assert found["region"] == {
        "box": [[3, 15], [0, 14], [6, 17]],
        "margin_mm": 20,
        "share": round(12 * 14 * 11 / expected.size, 4),
    }
    assert any("border of its region" in flag for flag in found["flags"])
    assert "3 to 14" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_where_nothing_is_found_the_whole_volume_is_predicted_and_flagged(
    runs, tmp_path, monkeypatch
):
    monkeypatch.setattr(Localizer, "find", lambda *_, **__: None)
    run(runs, tmp_path)
    assert np.array_equal(mask(tmp_path), mask(runs[0].out))
    assert any("found nothing" in flag for flag in record(tmp_path)["flags"])


def test_another_localizer_is_another_run(runs, tmp_path):
    run(runs, tmp_path)
    spec, _ = runs
    assert record(tmp_path)["settings"]["localizer_margin_mm"] == 20
    for changes in ({"localizer_margin_mm": 5.0}, {"localizer": None}, {"localizer": spec.model}):
        with pytest.raises(UserError, match="other settings"):
            predict(
                replace(spec, out=str(tmp_path), **({"localizer": str(runs[1])} | changes)),
                lambda event: None,
            )
    before = (tmp_path / "a.nii.gz").stat().st_mtime_ns
    run(runs, tmp_path)  # the same again keeps the result
    assert (tmp_path / "a.nii.gz").stat().st_mtime_ns == before


def test_what_cannot_be_a_localizer_is_refused(runs, tmp_path):
    spec, _ = runs
    other = write_model(tmp_path / "two", channels=("MRI", "T2"))
    with pytest.raises(UserError, match="--localizer .*channels"):
        predict(replace(spec, out=str(tmp_path / "o"), localizer=str(other)), lambda event: None)
    with pytest.raises(UserError, match="--save-probabilities"):
        replace(spec, localizer=str(other), save_probabilities="npz")
    with pytest.raises(UserError, match="--localizer-margin"):
        replace(spec, localizer=str(other), localizer_margin_mm=-1.0)
