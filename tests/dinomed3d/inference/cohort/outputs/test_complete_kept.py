"""What finished and corrected masks lack is made without predicting again."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinomed3d.inference.case import CaseError
from dinomed3d.inference.cohort.outputs import deliverables
from dinomed3d.inference.cohort.outputs.split_labels import split_files
from tests.dinomed3d.inference.cohort.runs import done_in, record, run, worklist


def test_statistics_of_finished_and_of_corrected_masks(spec):
    run(spec)
    out = Path(spec.out)
    assert not (out / "statistics.json").exists()
    outcome, events = run(spec, statistics=True)
    assert len(outcome.done) == 3 and not done_in(events)  # nothing is predicted again
    assert worklist(events).completed == ["scan0", "scan1", "scan2"]
    kept = json.loads((out / "statistics.json").read_text())
    mask = np.asanyarray(nib.load(out / "scan1.nii.gz").dataobj)
    values = nib.load(Path(spec.source) / "scan1.nii.gz").get_fdata()[mask == 1]
    assert kept["scan1"]["a"]["intensities"]["MRI"] == {
        "mean": pytest.approx(values.mean(), rel=1e-5),
        "std": pytest.approx(values.std(), rel=1e-5),
    }
    ml = record(spec, "scan1")["labels"]["a"]["volume_ml"]
    assert kept["scan1"]["a"]["volume_ml"] == pytest.approx(ml, abs=1e-4)
    assert "a_mean" in (out / "report.csv").read_text().splitlines()[0]
    image = nib.load(out / "scan1.nii.gz")
    values = np.where(mask == 1, 2, mask)
    nib.save(nib.Nifti1Image(values, image.affine, image.header), out / "scan1.nii.gz")
    assert worklist(run(spec, statistics=True)[1]).completed == ["scan1"]
    assert not worklist(run(spec, statistics=True)[1]).completed
    corrected = json.loads((out / "statistics.json").read_text())
    assert corrected["scan1"]["a"]["volume_mm3"] == 0 and corrected["scan0"] == kept["scan0"]
    run(spec, statistics=True, overwrite=True)
    assert json.loads((out / "statistics.json").read_text()) == kept  # as made while predicting


def test_a_mask_for_each_label(spec):
    (Path(spec.source) / "scan2.nii.gz").unlink()
    run(spec)
    out, folder = Path(spec.out), Path(spec.out) / "scan0.labels"
    foreign = out / "scan1.labels" / "b.nii.gz"
    foreign.parent.mkdir()
    foreign.write_bytes(b"somebody's")
    _, events = run(spec, split_labels=True)
    assert worklist(events).completed == ["scan0"] and not done_in(events)
    assert foreign.read_bytes() == b"somebody's"
    assert "no label files" in record(spec, "scan1")["flags"][-1]
    foreign.unlink()
    assert worklist(run(spec, split_labels=True)[1]).completed == ["scan1"]
    assert not any("no label files" in flag for flag in record(spec, "scan1")["flags"])
    whole = np.asanyarray(nib.load(out / "scan0.nii.gz").dataobj)
    for name, value in {"a": 1, "b": 2}.items():
        part = nib.load(folder / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(part.dataobj), whole == value)
        assert f">{name}<" in part.header.extensions[0].text
    (folder / "b.nii.gz").unlink()
    assert worklist(run(spec, split_labels=True)[1]).completed == ["scan0"]
    before = (folder / "b.nii.gz").read_bytes()
    _, events = run(spec, split_labels=True, overwrite=True)
    assert "scan0" in done_in(events) and (folder / "b.nii.gz").read_bytes() == before
    run(spec, overwrite=True)  # without the option nothing outdated stays
    assert not folder.exists()


def test_files_of_labels_have_names_of_their_own():
    files = split_files("p/1", ["Liver", "liver", "a/b", "a:b", "a_b", "con", ".."], ".nii.gz")
    assert [name.removesuffix(".nii.gz") for name in files.values()] == [
        f"p/1.labels/{name}" for name in ("Liver", "liver_2", "a_b", "a_b_2", "a_b_3", "_con", "_")
    ]


def test_what_could_not_be_made_of_a_correction_is_forgotten_with_it(spec, monkeypatch):
    def fail(*_, **__):
        raise CaseError("no scan")

    run(spec)
    mask = Path(spec.out) / "scan1.nii.gz"
    predicted = mask.read_bytes()
    image = nib.load(mask)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), None, image.header), mask)
    with monkeypatch.context() as patched:
        patched.setattr(deliverables, "draw_preview", fail)
        run(spec)
    assert "no preview and volumes of this mask: no scan" in record(spec, "scan1")["flags"]
    mask.write_bytes(predicted)
    run(spec)
    assert not any("no scan" in flag for flag in record(spec, "scan1")["flags"])
