"""Which cases of an earlier run are kept, and which are predicted again."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import done_in, record, run, worklist, write_scan
from tests.dinomed3d.inference.models.write_model import write_model


def test_what_is_done_is_not_done_again(spec):
    run(spec)
    before = {path: path.stat().st_mtime_ns for path in Path(spec.out).glob("scan*")}
    outcome, events = run(spec)
    assert len(outcome.done) == 3 and not done_in(events)
    assert before == {path: path.stat().st_mtime_ns for path in Path(spec.out).glob("scan*")}
    _, events = run(spec, overwrite=True)
    assert done_in(events) == {"scan0", "scan1", "scan2"}


def moved(path):
    image = nib.load(path)
    affine = image.affine.copy()
    affine[0, 3] += 1
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), affine, image.header), path)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda out, _: (out / "scan1.nii.gz").unlink(), "mask is gone"),
        (lambda out, _: os.truncate(out / "scan1.nii.gz", 60), "its mask"),
        (lambda out, _: os.truncate(out / "scan1.nii.gz", 0), "its mask"),
        (lambda out, _: moved(out / "scan1.nii.gz"), "its mask"),
        (lambda _, source: write_scan(source / "scan1.nii.gz", 9), "input files have changed"),
    ],
)
def test_damaged_results_are_predicted_again(spec, damage, why):
    run(spec)
    damage(Path(spec.out), Path(spec.source))
    outcome, events = run(spec)
    assert done_in(events) == {"scan1"} and len(outcome.done) == 3
    assert why in worklist(events).redone["scan1"]


def correct(path):
    """Someone draws into a mask."""
    mask = nib.load(path)
    values = np.asanyarray(mask.dataobj).copy()
    values[0, 0, 0] = 2 - values[0, 0, 0]
    nib.save(nib.Nifti1Image(values, mask.affine, mask.header), path)
    return path.read_bytes()


def test_a_corrected_mask_stays(spec):
    run(spec)
    out = Path(spec.out)
    corrected = correct(out / "scan1.nii.gz")
    _, events = run(spec)
    assert not done_in(events) and len(worklist(events).edited) == 1
    assert (out / "scan1.nii.gz").read_bytes() == corrected
    rows = (out / "report.csv").read_text().splitlines()
    assert ["corrected by hand" in row for row in rows] == [False, False, True, False]
    write_scan(Path(spec.source) / "scan1.nii.gz", 9)  # another scan: the correction is kept apart
    _, events = run(spec)
    assert worklist(events).redone["scan1"] == (
        "the input files have changed; its corrected mask is kept as scan1.edited1 or the next number"
    )
    assert (out / "scan1.edited1.nii.gz").read_bytes() == corrected
    assert (out / "scan1.nii.gz").read_bytes() != corrected
    again = correct(out / "scan1.nii.gz")
    run(spec, overwrite=True)
    assert (out / "scan1.edited2.nii.gz").read_bytes() == again
    assert (out / "scan1.edited1.nii.gz").read_bytes() == corrected


@pytest.mark.parametrize("edited", [False, True])
def test_a_preview_that_is_gone_is_drawn_anew_of_the_mask_as_it_is(spec, edited):
    run(spec)
    out = Path(spec.out)
    corrected = correct(out / "scan1.nii.gz") if edited else (out / "scan1.nii.gz").read_bytes()
    run(spec)
    before = (out / "scan1.png").read_bytes()
    (out / "scan1.png").unlink()
    _, events = run(spec)
    assert not done_in(events) and worklist(events).completed == ["scan1"]
    assert (out / "scan1.png").read_bytes() == before
    assert (out / "scan1.nii.gz").read_bytes() == corrected
    assert not worklist(run(spec)[1]).completed


def test_probabilities_that_are_gone_cost_no_correction(spec):
    run(spec, save_probabilities="npz")
    out = Path(spec.out)
    corrected = correct(out / "scan1.nii.gz")
    for name in ("scan1.npz", "scan1.pkl", "scan2.npz"):
        (out / name).unlink()
    _, events = run(spec, save_probabilities="npz")
    assert worklist(events).redone == {"scan2": "scan2.npz is gone"} and done_in(events) == {
        "scan2"
    }
    assert (out / "scan1.nii.gz").read_bytes() == corrected
    assert not list(out.glob("*.edited*"))
    for _ in range(2):  # said once, and kept
        flags = [flag for flag in record(spec, "scan1")["flags"] if "is gone" in flag]
        assert flags == [
            f"scan1.{what} is gone; only predicting again would make it" for what in ("npz", "pkl")
        ]
        row = (out / "report.csv").read_text().splitlines()[2]
        assert "corrected by hand" in row and "scan1.npz is gone" in row
        _, events = run(spec, save_probabilities="npz")
        assert not done_in(events) and not worklist(events).redone


def test_a_failure_costs_only_itself_and_leaves_nothing_outdated(spec):
    run(spec)
    bad = Path(spec.source) / "scan1.nii.gz"
    bad.write_bytes(bad.read_bytes()[:300])
    outcome, events = run(spec)
    assert outcome.done == ("scan0", "scan2") and list(outcome.failed) == ["scan1"]
    out = Path(spec.out)
    assert not (out / "scan1.nii.gz").exists() and not (out / "scan1.png").exists()
    assert record(spec, "scan1")["status"] == "failed" and not outcome.failed_before
    outcome, events = run(spec)
    assert not done_in(events) and len(worklist(events).failed) == 1
    assert outcome.failed_before == {"scan1"}
    outcome, events = run(spec, retry_failed=True)
    assert done_in(events) == {"scan1"} and outcome.failed_before == {"scan1"}
    bad.write_bytes(
        bad.read_bytes()[:200]
    )  # another file of this name: tried, and a failure of its own
    outcome, events = run(spec)
    assert done_in(events) == {"scan1"} and not outcome.failed_before
    write_scan(bad, 1)
    outcome, events = run(spec)
    assert done_in(events) == {"scan1"} and len(outcome.done) == 3


def test_a_rejected_input_that_became_a_case_is_predicted(spec):
    twin = write_scan(Path(spec.source) / "scan1.nii", 5)  # two scans would make one mask
    assert not run(spec)[0].failed_before
    outcome, _ = run(spec)
    assert set(outcome.failed) == outcome.failed_before == {"scan1"}
    twin.unlink()
    outcome, events = run(spec)
    assert done_in(events) == {"scan1"} and not outcome.failed


def test_another_rejected_file_of_the_same_name_is_a_failure_of_its_own(spec):
    archive = Path(spec.source) / "z.zip"
    archive.write_bytes(b"no archive")
    assert not run(spec)[0].failed_before
    assert run(spec)[0].failed_before == {"z"}
    archive.write_bytes(b"no archive, sent again")
    outcome, _ = run(spec)
    assert "z" in outcome.failed and not outcome.failed_before


def test_another_model_or_other_settings_do_not_mix(spec, tmp_path):
    run(spec)
    before = {path: path.read_bytes() for path in Path(spec.out).iterdir()}
    other = write_model(tmp_path / "other", mirroring=(0,))
    for change, message in (
        ({"model": str(other)}, "another model"),
        ({"step_size": 0.75}, "step_size was 0.5, now 0.75"),
        ({"mirroring": False}, "mirroring"),
        ({"orientation": "RAS"}, "orientation"),
    ):
        with pytest.raises(UserError, match=message):
            run(spec, **change)
    assert before == {path: path.read_bytes() for path in Path(spec.out).iterdir()}
    assert len(run(spec, step_size=0.75, overwrite=True)[0].done) == 3


def test_a_rejected_input_keeps_its_earlier_mask(spec):
    run(spec)
    out = Path(spec.out)
    mask = (out / "scan1.nii.gz").read_bytes()
    write_scan(Path(spec.source) / "scan1.nii", 5)  # now two scans would make one mask
    outcome, _ = run(spec)
    assert "scan1" in outcome.failed and len(outcome.done) == 2
    assert not (out / "scan1.nii.gz").exists()
    assert (out / "scan1.earlier1.nii.gz").read_bytes() == mask


def test_probabilities_survive_being_done_again(spec):
    for _ in range(2):
        run(spec, save_probabilities="b2nd", overwrite=True)
    assert (Path(spec.out) / "scan1.b2nd").is_file()
    assert len(worklist(run(spec, save_probabilities="b2nd")[1]).kept) == 3
