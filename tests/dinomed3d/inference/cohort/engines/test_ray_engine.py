"""The engine ray: two workers on this machine, one of them killed on the way."""

import json
import os
import signal

import pytest

from dinomed3d.inference.cohort.engines.ray_engine import run_on_ray
from dinomed3d.inference.cohort.events import CaseEnded, WorkerReady
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.runtime.errors import UserError
from tests import ROOT
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    # what Ray's own modules do, at import and at its end, is theirs to mend
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*:FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:ray"),
]
pytest.importorskip("ray", reason="Ray has no wheel for this Python")


DEADLY = """
import os, signal, sys
if any("default_worker.py" in word for word in sys.orig_argv):
    from dinomed3d.inference.cohort.worker.worker import Worker
    predict = Worker.predict
    def deadly(self, task, on_event):
        if "deadly" in task.case.id:
            os.kill(os.getpid(), signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        return predict(self, task, on_event)
    Worker.predict = deadly
"""


def test_two_workers_one_killed_and_a_case_that_kills_them(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(DEADLY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "path"), str(ROOT)]))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for name in ("RAY_ADDRESS", "PYTHONBREAKPOINT"):
        monkeypatch.delenv(name, raising=False)
    for number in range(8):
        write_scan(tmp_path / "in" / f"scan{number}.nii.gz", number)
    (tmp_path / "in" / "scan_bad.nii.gz").write_bytes(b"no image")
    write_scan(tmp_path / "in" / "scan_deadly.nii.gz")
    spec = PredictSpec(
        source=str(tmp_path / "in"),
        out=str(tmp_path / "out"),
        model=str(write_model(tmp_path)),
        engine="ray",
        workers=2,
        device="cpu",
    )
    workers, events, handlers = [], [], [signal.getsignal(signal.SIGTERM)]

    def on_event(event):
        events.append(event)
        handlers.append(signal.getsignal(signal.SIGTERM))
        if isinstance(event, WorkerReady):
            workers.append(event.pid)
        if len(workers) == 2 and sum(isinstance(e, CaseEnded) for e in events) == 1:
            os.kill(workers[0], signal.SIGTERM if os.name == "nt" else signal.SIGKILL)

    outcome = predict(spec, on_event)
    handlers.append(signal.getsignal(signal.SIGTERM))
    assert "PYTHONBREAKPOINT" not in os.environ  # nor Ray's debugger
    assert len(set(handlers)) == 1  # Ray's own would stay, and each forked process would inherit it
    assert len(workers) >= 2
    assert outcome.done == tuple(f"scan{i}" for i in range(8)) and not outcome.missing
    assert list(outcome.failed) == ["scan_bad", "scan_deadly"]
    report = json.loads((tmp_path / "out" / "run.json").read_text())
    assert report["missing"] == []


def test_ray_is_an_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    spec = PredictSpec(source="a", out="b", model="c", engine="ray")
    with pytest.raises(UserError, match="--engine ray"):
        run_on_ray(None, spec, [], print)
