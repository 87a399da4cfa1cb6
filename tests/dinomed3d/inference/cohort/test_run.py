"""Whole runs in this process: what they write, keep, refuse and report."""

import errno
import json
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import blosc2
import nibabel as nib
import numpy as np
import pytest

from dinomed3d.inference.case import Case, CaseList, RejectedInput, Scan
from dinomed3d.inference.cohort import results, worker
from dinomed3d.inference.cohort import run as run_module
from dinomed3d.inference.cohort.case_task import CaseTask, ends_run
from dinomed3d.inference.cohort.events import CaseEnded, CasesFound, CaseStarted
from dinomed3d.inference.cohort.resume import Worklist
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.shards import take_shard
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.split_labels import split_files
from dinomed3d.inference.models.package import package_model
from dinomed3d.runtime.atomic_files import WriteError
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.models.write_model import write_model
from tests.dinomed3d.training.conftest import REGIONS

AFFINE = np.array([[-1.1, 0, 0, 20], [0, 0.9, 0.1, -7], [0, -0.1, 1.3, 3], [0, 0, 0, 1]])


def write_scan(path: Path, seed: int = 0, shape=(24, 20, 18), affine=AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.standard_normal([n // 3 + 1 for n in shape])
    fine = np.kron(coarse, np.ones((3, 3, 3)))[tuple(slice(n) for n in shape)]
    nib.save(nib.Nifti1Image((fine * 100).astype(np.int16), affine), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def spec(tmp_path, model):
    for number in range(3):
        write_scan(tmp_path / "in" / f"scan{number}.nii.gz", number)
    return PredictSpec(
        source=str(tmp_path / "in"),
        out=str(tmp_path / "out"),
        model=str(model),
        engine="threads",
        device="cpu",
    )


def run(spec, **changes):
    events = []
    return predict(replace(spec, **changes), events.append), events


def record(spec, case):
    return json.loads((Path(spec.out) / f"{case}.json").read_text())


def done_in(events):
    return {event.case for event in events if isinstance(event, CaseEnded)}


def worklist(events) -> Worklist:
    assert isinstance(events[0], CasesFound)
    return events[0].work


def during(monkeypatch, name, action):
    """Have `action(number of the call)` run before each call of a function of the worker."""
    real, calls = getattr(worker, name), []

    def wrapped(*arguments, **options):
        calls.append(1)
        action(len(calls))
        return real(*arguments, **options)

    monkeypatch.setattr(worker, name, wrapped)


def raising(error, *, at):
    def action(number):
        if number == at:
            raise error

    return action


def full(*arguments):
    raise OSError(28, "No space left on device")


def test_everything_a_case_leaves(spec):
    outcome, events = run(spec)
    assert outcome.done == ("scan0", "scan1", "scan2") and not outcome.failed
    out = Path(spec.out)
    names = {path.name for path in out.iterdir()}
    ours = {f"scan{i}{e}" for i in range(3) for e in (".nii.gz", ".json", ".png")}
    assert names == ours | {"report.html", "report.csv", "run.json", "labels.ctbl"}
    assert (out / "labels.ctbl").read_text().splitlines()[3:] == [
        *("1 a 230 159 0 255", "2 b 86 180 233 255"),
    ]
    mask = nib.load(out / "scan1.nii.gz")
    scan = nib.load(Path(spec.source) / "scan1.nii.gz")
    assert mask.shape == scan.shape and np.array_equal(mask.affine, scan.affine)
    values = np.asanyarray(mask.dataobj)
    assert mask.get_data_dtype() == np.uint8 and set(np.unique(values)) >= {1, 2}
    written = record(spec, "scan1")
    voxel_ml = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    count = int((values == 1).sum())
    assert written["labels"]["a"]["voxels"] == count
    assert written["labels"]["a"]["volume_ml"] == pytest.approx(count * voxel_ml, rel=1e-3)
    assert 0 < written["certainty"] <= 1
    assert set(written["seconds"]) == {"estimate", "read", "preprocess", "network", "write"}
    assert written["orientation"] == "LAS" and written["peak_memory_gib"] > 0
    assert written["precision"] == "float32" and written["settings"]["step_size"] == 0.5
    starts = [event.case for event in events if isinstance(event, CaseStarted)]
    assert starts == ["scan0", "scan1", "scan2"]


def test_what_is_done_is_not_done_again(spec):
    run(spec)
    before = {path: path.stat().st_mtime_ns for path in Path(spec.out).glob("scan*")}
    outcome, events = run(spec)
    assert len(outcome.done) == 3 and not done_in(events)
    assert before == {path: path.stat().st_mtime_ns for path in Path(spec.out).glob("scan*")}
    _, events = run(spec, overwrite=True)
    assert done_in(events) == {"scan0", "scan1", "scan2"}


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
        (lambda out, _: (out / "scan1.png").unlink(), "scan1.png is gone"),
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
    run(spec)
    assert (out / "scan1.edited1.nii.gz").read_bytes() == corrected
    assert (out / "scan1.nii.gz").read_bytes() != corrected
    again = correct(out / "scan1.nii.gz")
    run(spec, overwrite=True)
    assert (out / "scan1.edited2.nii.gz").read_bytes() == again
    assert (out / "scan1.edited1.nii.gz").read_bytes() == corrected


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


def test_an_output_folder_that_cannot_be_used(spec):
    out, scan = Path(spec.out), Path(spec.source) / "scan1.nii.gz"
    before = scan.read_bytes()
    out.mkdir()
    (out / "file").write_text("")
    for change in (
        {"out": spec.source},
        {"out": str(out / "file")},
        {"out": spec.source, "source": str(scan)},
        {"out": spec.source, "source": str(scan), "overwrite": True},
    ):
        with pytest.raises(UserError, match="^-o "):
            run(spec, **change)
    assert scan.read_bytes() == before


@pytest.mark.parametrize("name", ["scan1.json", "scan1.png", "scan1.nii.gz"])
def test_a_file_of_others_costs_its_own_case(spec, name):
    out = Path(spec.out)
    out.mkdir()
    (out / name).write_text('{"case": "sc')  # also how a damaged record ends
    for overwrite in (False, True):
        outcome, events = run(spec, overwrite=overwrite)
        assert outcome.done == ("scan0", "scan2") and name in outcome.failed["scan1"]
        assert list(worklist(events).blocked) == ["scan1"]
        assert outcome.failed_before == ({"scan1"} if overwrite else set())  # it has no record
    assert (out / name).read_text() == '{"case": "sc'
    assert "scan1" in (out / "report.html").read_text(encoding="utf-8")
    (out / name).unlink()
    assert len(run(spec)[0].done) == 3


def test_reports_name_a_model_of_the_hub_and_not_where_its_cache_is(spec, tmp_path):
    commit = "0123456789" * 4
    folder = tmp_path / "hub" / "models--us--tiny" / "snapshots" / commit
    folder.mkdir(parents=True)
    file = shutil.copy(package_model(Path(spec.model), tmp_path / "m.zip"), folder / "model.zip")
    run(spec, model=str(file))
    text = (Path(spec.out) / "run.json").read_text(encoding="utf-8")
    content, name = json.loads(text), f"hf:us/tiny@{commit}"
    assert content["model"]["source"] == content["spec"]["model"] == name
    assert "snapshots" not in text


@pytest.mark.parametrize("name", ["run.json", "report.csv"])
def test_reports_of_others_are_not_replaced(spec, name):
    out = Path(spec.out)
    out.mkdir()
    (out / name).write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=name):
            run(spec, overwrite=overwrite)
    assert (out / name).read_text() == "{}"


def test_a_rejected_input_keeps_its_earlier_mask(spec):
    run(spec)
    out = Path(spec.out)
    mask = (out / "scan1.nii.gz").read_bytes()
    write_scan(Path(spec.source) / "scan1.nii", 5)  # now two scans would make one mask
    outcome, _ = run(spec)
    assert "scan1" in outcome.failed and len(outcome.done) == 2
    assert not (out / "scan1.nii.gz").exists()
    assert (out / "scan1.earlier1.nii.gz").read_bytes() == mask


def change_record(spec, case, **entries):
    path = Path(spec.out) / f"{case}.json"
    content = json.loads(path.read_text())
    for key, value in entries.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "entries",
    [
        {"mask": None},
        {"orientation": None},
        {"mask": {}},
        {"status": "later"},
        {"files": ["../x"]},
        {"split": {"files": {"a": "scan1.labels/../scan0.nii.gz"}}},
    ],
)
def test_an_incomplete_record_is_not_trusted(spec, entries):
    run(spec)
    victim = Path(spec.out).parent / "x"
    victim.write_text("of another")
    change_record(spec, "scan1", **entries)
    outcome, events = run(spec)
    assert done_in(events) == {"scan1"} and len(outcome.done) == 3
    assert victim.read_text() == "of another"
    assert list(Path(spec.out).glob("scan1.edited1.*"))  # whose mask that was nobody can say
    assert len(worklist(run(spec)[1]).kept) == 3


def test_probabilities_survive_being_done_again(spec):
    for _ in range(2):
        run(spec, save_probabilities="b2nd", overwrite=True)
    assert (Path(spec.out) / "scan1.b2nd").is_file()
    assert len(worklist(run(spec, save_probabilities="b2nd")[1]).kept) == 3


def test_a_scan_that_changes_during_the_run(spec, monkeypatch):
    first = Path(spec.source) / "scan0.nii.gz"
    real = worker.read_case

    def read_case(case, channels):
        volume = real(case, channels)
        if case.id == "scan1":
            write_scan(Path(spec.source) / "scan1.nii.gz", 8)
        return volume

    monkeypatch.setattr(worker, "read_case", read_case)
    during(monkeypatch, "segment", lambda number: write_scan(first, 8) if number == 1 else None)
    outcome, _ = run(spec)
    assert "changed" in outcome.failed["scan1"] and outcome.done == ("scan0", "scan2")
    assert "scan0" in worklist(run(spec)[1]).redone


def test_a_failure_while_writing_leaves_no_mask(spec, monkeypatch):
    monkeypatch.setattr(results, "draw_preview", lambda *a, **o: 1 / 0)
    outcome, _ = run(spec, save_probabilities="b2nd")
    assert len(outcome.failed) == 3
    left = {path.name for path in Path(spec.out).iterdir()}
    reports = {"report.html", "report.csv", "run.json", "labels.ctbl"}
    assert left == {*(f"scan{i}.json" for i in range(3)), *reports}


def test_dicom_seg_without_highdicom_ends_before_the_work(spec, monkeypatch):
    monkeypatch.setattr(run_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--dicom-seg"):
        run(spec, dicom_seg=True)
    assert not Path(spec.out).exists()


def test_a_full_disk_ends_the_run_with_its_reason(spec, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(UserError, match="No space left"):
        patched.setattr(worker, "write_record", full)
        patched.setattr(worker, "write_failure", full)
        run(spec)
    monkeypatch.setattr(run_module, "write_report", full)
    with pytest.raises(UserError, match="report.*No space left"):
        run(spec)
    monkeypatch.setattr(run_module, "run_engine", lambda *_: raising(UserError("first"), at=1)(1))
    with pytest.raises(UserError, match="first"):  # not the report, which fails as well
        run(spec, out=spec.out + "2")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EFBIG, errno.EROFS, errno.EACCES])
def test_a_disk_that_fails_while_a_mask_is_written_is_no_fault_of_the_case(spec, monkeypatch, code):
    def fail(number):
        if number == 2:
            raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched, pytest.raises(UserError, match=os.strerror(code)):
        during(patched, "write_results", fail)
        run(spec)
    outcome, events = run(spec)  # the same command goes on, without --retry-failed
    assert len(outcome.done) == 3 and not worklist(events).failed
    assert "scan0" not in done_in(events), "what was written before stays"


def test_a_mask_that_a_viewer_has_open_on_windows_costs_one_case():
    locked, full_disk = OSError(errno.EACCES, "denied"), OSError(errno.ENOSPC, "full")
    assert not ends_run(locked, windows=True) and ends_run(locked, windows=False)
    assert ends_run(full_disk, windows=True)


def test_a_file_that_cannot_be_written_says_so():
    task = CaseTask(Case(id="a", scans=()))
    with task.step("write"):
        raise WriteError(errno.EISDIR, "Is a directory", "OUT/a.png")
    assert task.reason == "OUT/a.png: could not be written: Is a directory" and not task.trace


def test_a_scan_that_cannot_be_read_from_the_disk_is(spec, monkeypatch):
    def fail(number):
        if number == 2:
            raise OSError(errno.EIO, "Input/output error")

    during(monkeypatch, "read_case", fail)
    outcome, _ = run(spec)
    assert "Input/output" in outcome.failed["scan1"] and len(outcome.done) == 2


@pytest.mark.parametrize(
    "entries",
    [
        {"seconds": {"read": "y"}},
        {"flags": [5]},
        {"certainty": "<b>"},
        {"labels": {"a": {"volume_ml": "x"}}},
        {"labels": {"a": 3}},
    ],
)
def test_a_record_with_other_types_is_predicted_again(spec, entries):
    run(spec)
    change_record(spec, "scan1", **entries)
    outcome, events = run(spec)
    assert len(outcome.done) == 3 and "record" in worklist(events).redone["scan1"]


def test_results_below_the_input_are_not_scans(spec):
    inside = str(Path(spec.source) / "results")
    for _ in range(2):
        outcome, _ = run(spec, out=inside)
        assert outcome.done == ("scan0", "scan1", "scan2")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (MemoryError("no"), "out of memory in step 'network'"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory in step"),
        (ZeroDivisionError("of ours"), "unexpected ZeroDivisionError in step 'network': of ours"),
    ],
)
def test_an_error_in_a_case_stays_in_that_case(spec, monkeypatch, fault, reason):
    during(monkeypatch, "segment", raising(fault, at=2))
    outcome, _ = run(spec)
    assert outcome.done == ("scan0", "scan2") and reason in outcome.failed["scan1"]
    assert ("trace" in record(spec, "scan1")) == isinstance(fault, ZeroDivisionError)


def test_a_memory_limit_that_no_split_meets(spec):
    write_scan(Path(spec.source) / "large.nii.gz", shape=(60, 50, 40))
    outcome, _ = run(spec, memory_limit_gib=0.01)
    assert len(outcome.failed) == 4
    assert all("--memory-limit" in reason for reason in outcome.failed.values())


def test_interrupted_between_cases(spec, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        during(patched, "segment", raising(KeyboardInterrupt, at=3))
        run(spec)
    out = Path(spec.out)
    assert record(spec, "scan0")["status"] == record(spec, "scan1")["status"] == "done"
    assert not (out / "scan2.nii.gz").exists()
    assert json.loads((out / "run.json").read_text())["missing"] == ["scan2"]
    assert not [t for t in threading.enumerate() if t.name.startswith(("reader", "writer"))]
    outcome, events = run(spec)
    assert done_in(events) == {"scan2"} and len(outcome.done) == 3


@pytest.mark.parametrize("labels", ["plain", "regions"])
@pytest.mark.parametrize("orientation", [None, "PIR"])
def test_probabilities_say_what_the_mask_says(spec, tmp_path, labels, orientation):
    model = write_model(tmp_path / labels, labels=REGIONS) if labels == "regions" else spec.model
    outcome, _ = run(
        spec, model=str(model), save_probabilities="b2nd", orientation=orientation, step_size=1.0
    )
    assert len(outcome.done) == 3, outcome.failed
    probabilities = blosc2.open(str(Path(spec.out) / "scan0.b2nd"))[:]
    mask = np.asanyarray(nib.load(Path(spec.out) / "scan0.nii.gz").dataobj).T
    assert probabilities.shape[1:] == mask.shape and probabilities.dtype == np.float16
    if labels == "regions":
        assert ((probabilities > 0.5).any(0) == (mask > 0)).mean() > 0.99
    else:
        np.testing.assert_allclose(probabilities.sum(0, dtype=np.float32), 1, atol=2e-3)
        assert (probabilities.argmax(0) == mask).mean() > 0.99  # float16 makes ties
    assert not list(Path(spec.out).glob(".*"))


def test_reoriented_volumes_give_reoriented_masks(spec):
    """The same scan stored in another order of axes: with --orientation the mask is the same in space."""
    source = Path(spec.source)
    straight = np.diag([1.0, 1.0, 1.0, 1.0])
    write_scan(source / "scan0.nii.gz", affine=straight)
    image = nib.load(source / "scan0.nii.gz")
    turned = image.as_reoriented([[2, -1], [0, 1], [1, -1]])
    nib.save(turned, source / "scan1.nii.gz")
    run(spec, orientation="RAS")
    one, two = (
        nib.as_closest_canonical(nib.load(Path(spec.out) / f"scan{i}.nii.gz")) for i in (0, 1)
    )
    np.testing.assert_allclose(one.affine, two.affine)
    assert np.array_equal(np.asanyarray(one.dataobj), np.asanyarray(two.dataobj))


def test_shards_are_disjoint_complete_and_balanced(tmp_path):
    rng = np.random.default_rng(0)

    def case(i):
        scan = Scan(files=(f"/{i}",), ending=".nii")
        return Case(id=f"{i:03}", scans=(scan,), size_bytes=int(rng.integers(1, 1000)))

    found = CaseList(
        cases=tuple(case(i) for i in range(100)),
        rejected=tuple(RejectedInput(id=f"r{i}", reason="") for i in range(5)),
    )
    shards = [take_shard(found, (i, 4), tmp_path) for i in range(1, 5)]
    assert sorted(name for shard in shards for name in shard.ids) == found.ids
    loads = [sum(case.size_bytes for case in shard.cases) for shard in shards]
    assert max(loads) - min(loads) < 60
    assert take_shard(found, None, tmp_path) == found
    # what is added later moves nothing
    more = replace(found, cases=(*found.cases, case(100), case(101)))
    later = [take_shard(more, (i, 4), tmp_path) for i in range(1, 5)]
    assert all(set(one.ids) <= set(two.ids) for one, two in zip(shards, later, strict=True))
    assert sum(len(shard.cases) for shard in later) == 102


def test_shards_share_one_report(spec):
    first, _ = run(spec, shard=(1, 2))
    content = json.loads((Path(spec.out) / "run.json").read_text())
    assert content["missing"] and 0 < len(first.done) < 3
    second, _ = run(spec, shard=(2, 2))
    assert not set(first.done) & set(second.done)
    assert json.loads((Path(spec.out) / "run.json").read_text())["missing"] == []
    table = (Path(spec.out) / "report.csv").read_text()
    assert all(case in table for case in (*first.done, *second.done))
    assert not done_in(run(spec, shard=(1, 2))[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step_size": 0.0}, "--step-size"),
        ({"step_size": 1.1}, "--step-size"),
        ({"memory_limit_gib": -1.0}, "--memory-limit"),
        ({"shard": (0, 2)}, "--shard"),
        ({"shard": (3, 2)}, "--shard"),
        ({"workers": 0}, "--workers"),
        ({"orientation": "RAX"}, "--orientation"),
        ({"orientation": "RLS"}, "--orientation"),
    ],
)
def test_impossible_requests(spec, change, message):
    with pytest.raises(UserError, match=message):
        replace(spec, **change)
