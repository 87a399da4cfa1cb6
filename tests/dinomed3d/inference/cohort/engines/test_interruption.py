"""The command killed, interrupted and started again: the results are those of an undisturbed run."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from dinomed3d.cli.main import main
from dinomed3d.inference.cohort.engines.worker_process import WorkerProcess
from dinomed3d.inference.cohort.spec import PredictSpec
from dinomed3d.inference.discovery.find_cases import find_cases
from dinomed3d.inference.models.model import open_model
from tests import ROOT
from tests.dinomed3d.inference.cohort.runs import write_scan
from tests.dinomed3d.inference.models.write_model import write_model

CASES = [f"scan{i:02}" for i in range(10)] + ["sub/x", "sub/y"]
KILLS = int(os.environ.get("DINOMED3D_TEST_KILLS", "2"))
"""How often the command is killed; more for a longer look."""
WAIT_S = 150  # starting takes half a minute on two busy cores without AVX-512

pytestmark = pytest.mark.timeout(600)  # each starts Python and torch several times

in_processes = pytest.mark.skipif(
    os.name != "posix", reason="needs signals and process groups of POSIX"
)


@dataclass(frozen=True)
class Place:
    """A model, scans, and a folder for results."""

    model: Path
    source: Path
    out: Path

    @property
    def words(self) -> list[str]:
        paths = ["-i", str(self.source), "-o", str(self.out), "-m", str(self.model)]
        return ["predict", *paths, "--device", "cpu"]

    def masks(self) -> dict[str, str]:
        """Case -> hash of its mask, of those whose record says that they are done."""
        found = {}
        for case, record in self.records().items():
            if record["status"] == "done":
                content = (self.out / record["mask"]["file"]).read_bytes()
                found[case] = hashlib.sha256(content).hexdigest()
        return found

    def records(self) -> dict[str, dict]:
        paths = {case: self.out / f"{case}.json" for case in CASES}
        return {c: json.loads(p.read_text("utf-8")) for c, p in paths.items() if p.exists()}

    def times(self, cases: Sequence[str]) -> dict[str, int]:
        """Of all files of these cases: when they were written."""
        files = [path for case in cases for path in self.out.glob(f"{case}.*")]
        return {str(path): path.stat().st_mtime_ns for path in files}

    def leftovers(self) -> list[str]:
        return [str(path) for path in self.out.rglob(".*") if "part" in path.name]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Scans, a model, and all results of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("made")
    for seed, case in enumerate(CASES):
        write_scan(folder / "in" / f"{case}.nii.gz", seed, shape=(40, 36, 30 + 2 * (seed % 3)))
    place = Place(write_model(folder), folder / "in", folder / "out")
    assert again(place) == 0
    assert len(place.masks()) == len(CASES)
    return place


@pytest.fixture
def place(made: Place, tmp_path: Path) -> Place:
    """The same model and scans, and an empty folder for results."""
    return Place(made.model, made.source, tmp_path / "out")


def again(place: Place, *words: str) -> int:
    """Run the command in this process."""
    return main([*place.words, "--engine", "threads", *words])


class Command:
    """The command in a process group of its own, as a terminal starts it."""

    def __init__(self, place: Place, *words: str, path: Path | None = None) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(str(p) for p in (path, ROOT) if p is not None),
            "OMP_NUM_THREADS": "1",
        }
        environment.pop("PYTEST_CURRENT_TEST", None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "dinomed3d.cli.main", *place.words, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=environment,
            start_new_session=True,
        )
        self.ended, self.over, self.stderr = 0, False, ""
        self.changed = threading.Condition()
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self.changed:
                self.stderr += line
                self.ended += line.startswith("[")
                self.changed.notify_all()
        with self.changed:
            self.over = True
            self.changed.notify_all()

    def after(self, cases: int) -> bool:
        """Wait until so many cases have ended; False if the command ends before."""
        with self.changed:
            reached = self.changed.wait_for(lambda: self.ended >= cases or self.over, WAIT_S)
        assert reached, f"{self.ended} of {cases} cases ended in {WAIT_S} s"
        return self.process.poll() is None

    def send(self, number: int) -> None:
        """To the whole group, as Ctrl-C and `kill -- -PID` do."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def worker(self) -> psutil.Process:
        """The second process."""
        (child,) = psutil.Process(self.process.pid).children(recursive=True)
        return child

    def code(self) -> int:
        """Its exit code, once it has ended."""
        assert self.process.stdout is not None and self.process.stderr is not None
        if not self.process.stdout.closed:
            self.stdout = self.process.stdout.read()
            self.listener.join(WAIT_S)
            self.process.stdout.close()
            self.process.stderr.close()
        return self.process.wait(WAIT_S)


@pytest.fixture
def start(place: Place) -> Iterator[Callable[..., Command]]:
    """Start the command; what still runs in the end is killed."""
    commands: list[Command] = []

    def begin(*words: str, at: Place = place, path: Path | None = None) -> Command:
        commands.append(Command(at, *words, path=path))
        return commands[-1]

    yield begin
    for command in commands:
        command.send(signal.SIGKILL)
        command.code()


def as_undisturbed(place: Place, made: Place) -> None:
    """All masks are, byte by byte, those of the run that nobody disturbed."""
    assert place.masks() == made.masks()
    assert not place.leftovers()
    names = [
        sorted(path.relative_to(p.out).as_posix() for path in p.out.rglob("*") if path.is_file())
        for p in (place, made)
    ]
    assert names[0] == names[1]
    run = json.loads((place.out / "run.json").read_text("utf-8"))
    assert run["missing"] == [] and run["counts"]["done"] == len(CASES)


def alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


@in_processes
@pytest.mark.slow
@pytest.mark.timeout(600 + 60 * KILLS)
def test_killed_at_random_moments(
    place: Place,
    made: Place,
    start: Callable[..., Command],
    capsys: pytest.CaptureFixture[str],
) -> None:
    rng = random.Random(KILLS)
    done: list[str] = []
    before: dict[str, int] = {}
    for number in range(KILLS):
        command = start("--engine", ("process", "threads")[number % 2])
        command.after(rng.choice([0, 1, 1, 2]))
        time.sleep(rng.uniform(0, 0.3 if command.ended else 4))
        command.send(signal.SIGKILL)
        command.code()
        assert place.times(done) == before  # what was complete has not been touched
        done = sorted(place.masks())
        before = place.times(done)
    capsys.readouterr()
    assert again(place) == 0
    assert not done or f"{len(done)} done earlier and verified" in capsys.readouterr().err
    assert place.times(done) == before
    as_undisturbed(place, made)


@in_processes
@pytest.mark.slow
@pytest.mark.parametrize("engine", ["process", "threads"])
def test_interrupted_from_the_keyboard(
    place: Place, made: Place, start: Callable[..., Command], engine: str
) -> None:
    command = start("--engine", engine)
    assert command.after(2)
    command.send(signal.SIGINT)
    assert command.code() == 130
    assert command.stderr.splitlines()[-1] == "dinomed3d predict: interrupted"
    assert "Traceback" not in command.stderr and "Error" not in command.stderr
    masks = place.masks()
    assert 2 <= len(masks) < len(CASES) and masks.items() <= made.masks().items()
    assert not place.leftovers()
    run = json.loads((place.out / "run.json").read_text("utf-8"))
    assert sorted(run["missing"]) == sorted(set(CASES) - masks.keys())
    assert (place.out / "report.html").exists() and (place.out / "report.csv").exists()


WITHOUT_TORCH = """
import sys
if not any("dinomed3d.inference.cohort.engines.child_process" in word for word in sys.orig_argv):
    sys.modules["torch"] = None
"""
"""Only the worker can import torch: the command, which needs seconds and memory for it, does without."""


@in_processes
@pytest.mark.slow
def test_the_worker_is_killed(
    made: Place, place: Place, tmp_path: Path, start: Callable[..., Command]
) -> None:
    """Few cases: those that a killed worker had begun are tried alone, each in a new one."""
    write_scan(tmp_path / "in" / "a.nii.gz", shape=(20, 18, 16))
    write_scan(tmp_path / "in" / "b.nii.gz", shape=(80, 70, 60))
    own = Place(made.model, tmp_path / "in", place.out)
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(WITHOUT_TORCH, encoding="utf-8")
    command = start(at=own, path=tmp_path / "path")
    assert command.after(1)
    command.worker().kill()
    assert command.code() == 0, command.stderr
    assert "2 cases done, 0 failed" in command.stdout
    killed = [path.read_bytes() for path in sorted(own.out.glob("*.nii.gz"))]
    assert not own.leftovers()
    assert again(own, "--overwrite") == 0
    assert [path.read_bytes() for path in sorted(own.out.glob("*.nii.gz"))] == killed


@in_processes
@pytest.mark.slow
def test_no_worker_outlives_the_command(place: Place, start: Callable[..., Command]) -> None:
    command = start("--engine", "process")
    assert command.after(1)
    worker = command.worker()
    command.process.kill()
    command.process.wait(WAIT_S)
    until = time.monotonic() + WAIT_S
    while alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(worker)


DEADLY = """
import os, signal, sys
if any("dinomed3d.inference.cohort.engines.child_process" in word for word in sys.orig_argv):
    print("what a module of the environment prints")
    from dinomed3d.inference.cohort.worker import case_input
    from dinomed3d.inference.cohort.worker.worker import Worker
    predict = Worker.predict
    read_grid = case_input.read_grid
    def fatal(scan, **options):
        if "fatal" in scan.files[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return read_grid(scan, **options)
    case_input.read_grid = fatal
    def deadly(self, task, *rest):
        if "deadly" in task.case.id:
            os.kill(os.getpid(), signal.SIGKILL)
        return predict(self, task, *rest)
    Worker.predict = deadly
"""


@in_processes
@pytest.mark.slow
def test_a_case_that_kills_every_worker(
    made: Place, tmp_path: Path, start: Callable[..., Command], place: Place
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(DEADLY)
    source = tmp_path / "in"
    write_scan(source / "a_deadly.nii.gz")
    write_scan(source / "b_fatal.nii.gz")  # as soon as its header is looked at
    os.link(made.source / "scan00.nii.gz", source / "scan00.nii.gz")
    command = start(at=Place(made.model, source, place.out), path=tmp_path / "path")
    assert command.code() == 1
    assert place.masks() == {"scan00": made.masks()["scan00"]}
    record = json.loads((place.out / "a_deadly.json").read_text("utf-8"))
    assert record["status"] == "failed"
    assert re.search(r"ended twice \(killed, perhaps for lack of memory\)", record["reason"])
    assert json.loads((place.out / "b_fatal.json").read_text("utf-8"))["status"] == "failed"
    assert "1 case done, 2 failed" in command.stdout
    assert "failed: a_deadly: " in command.stdout
    assert "a_deadly" in (place.out / "report.csv").read_text("utf-8")
    assert not place.leftovers()


def test_no_code_of_the_current_folder_runs(
    made: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "psutil.py").write_text("open('was-run', 'w')\nraise SystemExit(9)")
    monkeypatch.chdir(tmp_path)
    worker = WorkerProcess(PredictSpec(source="none", out="none", model=str(made.model)))
    assert Path(worker.folder.name).is_dir()
    assert worker.model() == open_model(made.model)
    worker.end()  # nothing to do: it goes, and what was for it
    assert worker.process.returncode == 0
    assert not (tmp_path / "was-run").exists() and not Path(worker.folder.name).exists()


def test_a_case_does_not_fail_because_nobody_listens(made: Place, tmp_path: Path) -> None:
    """The command was killed while its worker was in the middle of a case."""
    spec = PredictSpec(source=str(made.source), out=str(tmp_path), model=str(made.model))
    cases = find_cases(made.source, channels=open_model(made.model).channels).cases[:2]
    worker = WorkerProcess(spec)
    worker.model()
    worker._send((cases, True))
    assert worker.process.stdout is not None and worker.process.stdin is not None
    worker.process.stdout.close()
    worker.process.wait(timeout=WAIT_S)
    worker.process.stdin.close()
    worker.folder.cleanup()
    records = [json.loads((tmp_path / f"{case.id}.json").read_text("utf-8")) for case in cases]
    assert [record["status"] for record in records] == ["done", "done"]
