"""Neither scans nor files of others are replaced."""

from pathlib import Path

import pytest

from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import run, worklist, write_scan


def test_an_output_folder_that_cannot_be_used(spec):
    out, scan = Path(spec.out), Path(spec.source) / "scan1.nii.gz"
    before = scan.read_bytes()
    out.mkdir()
    (out / "file").write_text("")
    named = str(write_scan(out.parent / "named" / "a_0000.nii.gz").parent)  # its mask is a.nii.gz
    for change in (
        {"out": named, "source": named},
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


@pytest.mark.parametrize("name", ["run.json", "report.csv"])
def test_reports_of_others_are_not_replaced(spec, name):
    out = Path(spec.out)
    out.mkdir()
    (out / name).write_text("{}")
    for overwrite in (False, True):
        with pytest.raises(UserError, match=name):
            run(spec, overwrite=overwrite)
    assert (out / name).read_text() == "{}"


def test_results_below_the_input_are_not_scans(spec):
    inside = str(Path(spec.source) / "results")
    for _ in range(2):
        outcome, _ = run(spec, out=inside)
        assert outcome.done == ("scan0", "scan1", "scan2")
