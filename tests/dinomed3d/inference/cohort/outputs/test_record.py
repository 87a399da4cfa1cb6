"""Records with entries that are missing or of another type are not believed."""

import json
from pathlib import Path

import pytest

from tests.dinomed3d.inference.cohort.runs import done_in, run, worklist


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
