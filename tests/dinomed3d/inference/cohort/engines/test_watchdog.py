"""A case without a sign of progress is given up and said, the others go on, and nothing slow is taken for it."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from dinomed3d.cli.progress import prediction as cli
from dinomed3d.inference.case import Case
from dinomed3d.inference.cohort.engines import (
    failed_case,
    process_engine,
    ray_engine,
    threads_engine,
    worker_process,
)
from dinomed3d.inference.cohort.engines.process_engine import supervise
from dinomed3d.inference.cohort.engines.watchdog import Watchdog
from dinomed3d.inference.cohort.engines.worker_process import WorkerProcess
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseStarted,
    CaseStep,
    RunStalled,
    WorkerAlive,
    WorkerReady,
)
from dinomed3d.inference.cohort.run import predict
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.cohort.worker import progress
from dinomed3d.runtime.errors import UserError
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model

MODEL = SimpleNamespace(sizes={"fold_0/checkpoint_final.pth": 600_000_000})
SPEC = PredictSpec(source="in", out="out", model="model", stall_minutes=10)


def cases(*names: str, size_bytes: int = 0) -> list[Case]:
    return [Case(id=name, scans=(), size_bytes=size_bytes) for name in names]


def begins(case: str, step: str) -> CaseStep:
    return CaseStep(case, step, ended=False)


@pytest.fixture
def given_up(monkeypatch):
    """Case -> reason of what is given up; no record is written."""
    found = {}

    def note(case, reason, model, spec, on_event):
        found[case.id] = reason
        on_event(CaseEnded(case.id, reason, {}))

    for module in (process_engine, threads_engine, ray_engine, failed_case):
        monkeypatch.setattr(module, "give_up", note)
    return found


def silent(dog: Watchdog, seconds: float) -> bool:
    for _ in range(round(seconds)):
        dog.wait(1, at_most=2)
    return dog.is_over


def test_silence_is_counted_from_the_last_sign():
    dog = Watchdog(1, cases("a"))
    dog.note(CaseStarted("a"))
    assert not silent(dog, 59)
    dog.note(WorkerAlive())  # a window
    assert not silent(dog, 59)
    assert silent(dog, 1)


def test_large_scans_and_models_are_allowed_more():
    dog = Watchdog(1, cases("a", size_bytes=3_000_000_000), loads=MODEL)
    assert not silent(dog, 659) and silent(dog, 1)
    dog.note(WorkerReady(1))
    assert silent(dog, 60)
    dog.note(CaseStarted("a"))
    assert not silent(dog, 3059) and silent(dog, 1)


def test_never_and_a_computer_that_slept():
    assert not silent(Watchdog(0, cases("a")), 10_000)
    dog = Watchdog(1, cases("a"))
    dog.wait(8 * 3600, at_most=2)
    assert not dog.is_over


def test_the_step_that_has_not_ended_is_blamed():
    dog = Watchdog(1, cases("a", "b"))
    for event in (CaseStarted("a"), begins("a", "read"), CaseStep("a", "read", ended=True)):
        dog.note(event)
    dog.note(CaseStarted("b"))
    assert list(dog.stuck) == ["a"]  # between its steps, while b waits for it
    dog.note(begins("b", "network"))
    silent(dog, 120)
    (reason,) = dog.stuck.values()
    assert list(dog.stuck) == ["b"] and "'network' for 2 minutes" in reason
    dog.note(CaseEnded("b", None, {}))
    assert list(dog.stuck) == ["a"]


class FakeWorker:
    """Plays what workers do, one after the other; None is silence until it is given up."""

    plays: list[list]
    seen: list[list[str]]

    def __init__(self, spec):
        self.process = SimpleNamespace(returncode=0)

    def work(self, batch, dog, *, overlap):
        self.seen.append([case.id for case in batch])
        for event in self.plays.pop(0):
            if event is None:
                silent(dog, 1000)
                assert dog.is_over
                return
            yield event

    def end(self):
        pass


def done(name):
    return [CaseStarted(name), CaseEnded(name, None, {})]


@pytest.fixture
def workers(monkeypatch):
    monkeypatch.setattr(process_engine, "WorkerProcess", FakeWorker)
    monkeypatch.setattr(process_engine, "remove_leftovers", lambda *_: None)
    FakeWorker.seen = []
    return FakeWorker


def test_one_case_that_hangs_costs_itself(workers, given_up):
    hangs = [CaseStarted("b"), begins("b", "read"), CaseStarted("c"), None]
    workers.plays = [[WorkerReady(1), *done("a"), *hangs], [WorkerReady(2), *done("c")]]
    events = []
    supervise(MODEL, SPEC, cases("a", "b", "c"), events.append, FakeWorker(SPEC))
    assert workers.seen == [["a", "b", "c"], ["c"]]
    assert list(given_up) == ["b"] and "step 'read'" in given_up["b"]
    assert {event.case for event in events if isinstance(event, CaseEnded)} == {"a", "b", "c"}


def test_of_several_that_may_hang_each_is_tried_alone(workers, given_up):
    both = [WorkerReady(1), CaseStarted("a"), CaseStarted("b"), begins("a", "read")]
    workers.plays = [
        [*both, begins("b", "read"), None],
        [WorkerReady(2), *done("a")],
        [WorkerReady(3), CaseStarted("b"), begins("b", "read"), None],
        [WorkerReady(4), *done("c")],
    ]
    supervise(MODEL, SPEC, cases("a", "b", "c"), lambda event: None, FakeWorker(SPEC))
    assert workers.seen == [["a", "b", "c"], ["a"], ["b"], ["c"]]
    assert list(given_up) == ["b"]


def test_a_model_that_is_never_loaded_ends_the_run(workers, given_up):
    workers.plays = [[None]]
    small = SimpleNamespace(sizes={})
    with pytest.raises(UserError, match="--stall-minutes"):
        supervise(small, SPEC, cases("a"), lambda event: None, FakeWorker(SPEC))
    assert not given_up


CHILD = """
import pickle, sys, time
from dinomed3d.inference.cohort.events import CaseStarted
out = sys.stdout.buffer
out.write(b"dinomed3d: events follow\\n")
pickle.dump(CaseStarted("a"), out)
out.flush()
time.sleep(60)
"""


def test_a_process_that_hangs_is_killed(monkeypatch):
    monkeypatch.setattr(worker_process, "_START", CHILD)
    monkeypatch.setattr(worker_process, "POLL_S", 0.05)
    worker, dog = WorkerProcess(SPEC), Watchdog(0.2 / 60, cases("a"))
    while not worker.events.qsize():
        time.sleep(0.01)  # Python starts
    assert list(worker.work([], dog, overlap=False)) == [CaseStarted("a")]
    worker.end()
    assert dog.is_over and worker.process.returncode != 0


def test_threads_say_that_they_cannot_end_what_hangs(monkeypatch, given_up):
    released, events = threading.Event(), []

    class Hangs:
        device = "cpu"

        def __init__(self, model, spec):
            pass

        def run(self, batch, on_event):
            on_event(CaseStarted("a"))
            on_event(begins("a", "read"))
            released.wait(20)

    def receive(event):
        events.append(event)
        if isinstance(event, RunStalled):
            released.set()

    monkeypatch.setattr(threads_engine, "Worker", Hangs)
    monkeypatch.setattr(threads_engine, "POLL_S", 0.01)
    spec = PredictSpec(source="in", out="out", model="model", stall_minutes=0.001)
    threads_engine.run_in_threads(MODEL, spec, cases("a"), receive)
    assert list(given_up) == ["a"] and isinstance(events[-1], RunStalled)


def test_the_command_ends_where_a_thread_hangs(monkeypatch, capsys):
    codes = []
    monkeypatch.setattr(cli.os, "_exit", codes.append)
    cli.Progress()(RunStalled("the same command goes on"))
    assert codes == [1] and "the same command goes on" in capsys.readouterr().err


def test_every_step_and_every_pass_is_a_sign(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "SIGN_EVERY_S", -1)
    write_scan(tmp_path / "in" / "a.nii.gz")
    spec = PredictSpec(
        source=str(tmp_path / "in"), out=str(tmp_path / "out"), model=str(write_model(tmp_path)),
        engine="threads", device="cpu",
    )  # fmt: skip
    events = []
    predict(spec, events.append)
    steps = [(e.step, e.ended) for e in events if isinstance(e, CaseStep)]
    names = ("estimate", "read", "preprocess", "network", "write")
    assert steps == [(name, ended) for name in names for ended in (False, True)]
    windows = sum(isinstance(event, WorkerAlive) for event in events)
    assert windows > 0 and windows % 4 == 0  # two mirrored axes


@dataclass(eq=False)
class Answer:
    """What a worker of the fake cluster will have answered; None: nothing."""

    value: object


class FakeRay:
    """A cluster whose clock goes on where nothing happens; the worker of the case `b` hangs."""

    exceptions = SimpleNamespace(RayError=KeyError)

    def __init__(self):
        self.now, self.killed, self.pid = 0.0, [], 0

    def remote(self, **options):
        return lambda actor: SimpleNamespace(remote=self._actor)

    def _actor(self, spec):
        self.pid += 1
        pid = self.pid

        def call(result):
            return SimpleNamespace(remote=lambda *arguments: Answer(result(*arguments)))

        return SimpleNamespace(
            pid=pid,
            load=call(lambda: WorkerReady(pid)),
            predict=call(lambda case: None if case.id == "b" else CaseEnded(case.id, None, {})),
            signs=call(lambda: min(2, self.now // 1000)),  # two signs, and no more
        )

    def wait(self, refs, timeout, num_returns=1):
        found = [ref for ref in refs if ref.value is not None][:1]
        self.now += 0 if found else timeout
        return found, []

    def get(self, ref):
        return ref.value

    def kill(self, actor, *, no_restart):
        assert no_restart
        self.killed.append(actor.pid)


def test_a_worker_of_ray_that_hangs_is_replaced(monkeypatch, given_up):
    ray = FakeRay()
    monkeypatch.setattr(ray_engine.time, "monotonic", lambda: ray.now)
    spec = PredictSpec(
        source="in", out="out", model="model", engine="ray", device="cpu", stall_minutes=20
    )
    ended = []
    ray_engine._distribute(ray, MODEL, spec, cases("a", "b", "c"), ended.append)
    assert ray.killed == [1] and list(given_up) == ["b"]
    assert [event.case for event in ended if isinstance(event, CaseEnded)] == ["a", "b", "c"]
    assert 3000 <= ray.now < 4000  # it had shown signs at 1000 and 2000 seconds, and had 1200 more
