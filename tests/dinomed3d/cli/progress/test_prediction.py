"""What `predict` shows while it runs, on a terminal and in a log."""

import re

import pytest

from dinomed3d.cli.progress import prediction
from dinomed3d.cli.progress.prediction import LOG_EVERY_S, Progress, shortened
from dinomed3d.cli.progress.time_left import duration
from dinomed3d.inference.case import Case, CaseList, RejectedInput
from dinomed3d.inference.cohort.events import (
    CaseEnded,
    CaseProgress,
    CasesFound,
    CaseStarted,
    CaseStep,
    WorkerAlive,
    WorkerReady,
)
from dinomed3d.inference.cohort.outputs.resume import Worklist


class Shown:
    """A run's progress at times that the test sets."""

    def __init__(self, monkeypatch, capsys, *, live=False):
        self.now, self.capsys = 100.0, capsys
        monkeypatch.setattr(prediction.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(prediction.sys.stderr, "isatty", lambda: live, raising=False)
        monkeypatch.setenv("COLUMNS", "100")
        self.progress = Progress()

    def found(self, **sizes):
        cases = [Case(id=name, scans=(), size_bytes=size) for name, size in sizes.items()]
        self.progress(CasesFound(CaseList(cases=tuple(cases)), Worklist(todo=cases)))
        self.progress(WorkerReady(1, "cuda:0"))
        self.lines()

    def at(self, now, *events):
        self.now = now
        for event in events:
            self.progress(event)
        return self.lines()

    def lines(self):
        return re.findall(r"[^\r\n]+", self.capsys.readouterr().err.replace("\x1b[K", ""))


@pytest.fixture
def log(monkeypatch, capsys):
    return Shown(monkeypatch, capsys)


@pytest.fixture
def terminal(monkeypatch, capsys):
    return Shown(monkeypatch, capsys, live=True)


def network(case):
    return CaseStep(case, "network", ended=False)


def test_what_was_found_and_what_ended(log):
    cases = [Case(id=name, scans=()) for name in "abcdefghi"]
    rejected = tuple(RejectedInput(id=name, reason="") for name in "vwxyz")
    shard = CaseList(cases=tuple(cases), rejected=rejected, ignored={"hidden": 6})
    work = Worklist(
        todo=cases[:2],
        kept=list("cdef"),
        edited=["c"],
        failed=list("ghi"),
        redone={"a": "its mask is gone"},
    )
    first, again = log.at(100, CasesFound(shard, work))
    assert re.findall(r"\d", first) == list("9241356") and "--retry-failed" in first
    assert again == "again: a: its mask is gone"
    assert not log.at(100, CaseStarted("a"), CaseProgress("a", 1, 2))  # a log is no terminal
    (line,) = log.at(102, CaseEnded("a", None, {"x": 2.0}))
    assert line == "[1/2] a: 2.0 s, about 2 s left"
    assert log.at(103, CaseEnded("b", "why", {})) == ["[2/2] b: FAILED: why"]


def test_a_log_has_a_line_after_a_silence_and_no_flood(log):
    log.found(a=10)
    log.at(100, CaseStarted("a"), network("a"))
    lines = [log.at(100 + second, CaseProgress("a", second, 600)) for second in range(1, 601)]
    said = [second for second, line in enumerate(lines, 1) if line]
    assert said == [120, 240, 360, 480, 600]
    assert lines[119] == [
        "[1/1] a: window 120 of 600 (20%), cuda:0, about 8 min left for this case"
    ]
    assert not log.at(701, WorkerAlive()) and log.at(700 + LOG_EVERY_S, WorkerAlive())


def test_a_terminal_shows_the_case_in_the_network(terminal):
    terminal.found(a=10, b=30)
    assert terminal.at(101, CaseStarted("a")) == ["[1/2] a: reading its header"]
    assert terminal.at(102, network("a")) == ["[1/2] a: network, cuda:0"]
    assert terminal.at(103, CaseStarted("b")) == ["[1/2] a: network, cuda:0"]
    # two seconds are no evidence
    assert terminal.at(104, CaseProgress("a", 1, 4)) == ["[1/2] a: window 1 of 4 (25%), cuda:0"]
    assert not terminal.at(104.1, CaseProgress("a", 2, 4))
    (line,) = terminal.at(108, CaseProgress("a", 3, 4))
    assert line == "[1/2] a: window 3 of 4 (75%), cuda:0, about 2 s left for this case"
    # 10 bytes took 9 s, 30 are left
    (line,) = terminal.at(110, CaseEnded("a", None, {"x": 9.0}))
    assert line == "[1/2] a: 9.0 s, about 27 s left"
    terminal.at(111, network("b"))
    (line,) = terminal.at(120, CaseProgress("b", 2, 3))
    assert line == "[2/2] b: window 2 of 3 (67%), cuda:0, about 9 s left"


def test_failed_cases_say_nothing_of_the_time_of_others(log):
    log.found(a=1000, b=1, c=1)
    log.at(100, CaseStarted("a"))
    assert log.at(101, CaseEnded("a", "why", {})) == ["[1/3] a: FAILED: why"]
    assert log.at(104, CaseEnded("b", None, {"x": 3.0})) == ["[2/3] b: 3.0 s, about 4 s left"]


def test_names_do_not_wrap_or_control_the_line(terminal):
    name = "\x1b[31m" + "long/" * 40 + "end"
    terminal.found(**{name: 1})
    (line,) = terminal.at(101, CaseStarted(name))
    assert len(line) == 99 and "\x1b" not in line and "long/end: reading" in line
    assert shortened("字" * 20, 23) == "..." + "字" * 10


def test_durations():
    assert [duration(s) for s in (0.2, 5, 89, 300, 7200)] == [
        "1 s",
        "5 s",
        "89 s",
        "5 min",
        "2.0 h",
    ]
