"""Many scenes at once: resumed, interrupted, with bad ones, killed workers and full disks."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.index import Index, find_index
from pointseg.datasets.prepare_scenes import Job, prepare_scenes
from pointseg.datasets.scene_arrays import save_scene
from pointseg.files.table.errors import CloudFileError
from tests import ROOT

INDEX = Index(dataset="s3dis", splits={"train": ("a", "b", "c")}, fields=())
JOBS = [Job("train", name, name, ("coord",)) for name in "abc"]


def write(task: str, folder: Path) -> list[str]:
    """Scenes named after what happens to them."""
    if task == "bad":
        raise CloudFileError(folder, "is\nbad")  # does not survive pickling as it is
    if task == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if task == "io":
        raise OSError(errno.EIO, "Input/output error")
    if task == "bug":
        raise TypeError("a defect of the program")
    if task == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "once" and not (mark := folder.parent.parent / "mark").exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if task == "slow":
        part = folder.with_name(f".0000.part.{folder.name}")
        part.mkdir(parents=True)
        try:
            time.sleep(60)
        finally:
            part.rmdir()
    save_scene(folder, {"coord": np.zeros((1, 3), np.float32)})
    return [f"note {task}"] if task == "b" else []


def job(name: str) -> Job[str]:
    return Job("train", name, name, ("coord",))


@pytest.mark.parametrize("workers", [1, 2])
def test_scenes_and_notes_come_in_order_and_one_bad_one_costs_itself(
    tmp_path: Path, workers: int
) -> None:
    reported: list[tuple[int, int, int]] = []
    jobs = [*JOBS, job("bad"), job("io")]
    done = prepare_scenes(
        write,
        jobs,
        tmp_path,
        INDEX,
        workers=workers,
        report=lambda *n: reported.append(n),
        notes=["hi"],
    )
    assert done.splits == {"train": ("a", "b", "c")}
    assert done.notes == ("hi", "train/b: note b")
    assert list(done.failed) == ["train/bad", "train/io"]
    assert done.failed["train/bad"].endswith("is bad")
    assert "Input/output error" in done.failed["train/io"]
    assert reported == [(n, 0, 5) for n in range(6)]
    index = find_index(tmp_path)
    assert index is not None and index.complete and index.failed == done.failed
    assert index.splits == done.splits


def test_finished_scenes_are_kept_and_cut_off_ones_made_again(tmp_path: Path) -> None:
    prepare_scenes(write, JOBS, tmp_path, INDEX)
    before = (tmp_path / "train" / "a").stat().st_ino
    cut = tmp_path / "train" / "b" / "coord.npy"
    cut.write_bytes(cut.read_bytes()[:-1])
    reported: list[tuple[int, int, int]] = []
    done = prepare_scenes(write, JOBS, tmp_path, INDEX, report=lambda *n: reported.append(n))
    assert done.kept == 2 and reported == [(2, 2, 3), (3, 2, 3)]
    assert (tmp_path / "train" / "a").stat().st_ino == before
    assert np.load(cut).shape == (1, 3)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_it_and_says_to_go_on(tmp_path: Path, workers: int) -> None:
    with pytest.raises(DatasetError, match="No space left on device; make room and run the same"):
        prepare_scenes(write, [job("a"), job("full"), job("b")], tmp_path, INDEX, workers=workers)
    index = find_index(tmp_path)
    assert index is not None and not index.complete


@pytest.mark.parametrize("workers", [1, 2])
def test_a_defect_of_the_program_does_not_pass_for_bad_data(tmp_path: Path, workers: int) -> None:
    with pytest.raises(TypeError, match="a defect"):
        prepare_scenes(write, [job("a"), job("bug")], tmp_path, INDEX, workers=workers)


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_scene(tmp_path: Path) -> None:
    jobs = [job("killed"), *JOBS, job("once")]
    done = prepare_scenes(write, jobs, tmp_path, INDEX, workers=2)
    # Others may run with the killed one twice, and share its fate; run again they are made.
    assert "train/killed" in done.failed and "fewer --workers" in done.failed["train/killed"]
    jobs = [*JOBS, job("once")]
    done = prepare_scenes(write, jobs, tmp_path, INDEX, workers=2)
    assert done.failed == {} and len(done.splits["train"]) == 4


def test_other_datasets_and_other_options_are_not_mixed(tmp_path: Path) -> None:
    prepare_scenes(write, JOBS, tmp_path, INDEX)
    with pytest.raises(DatasetError, match="holds 's3dis' already; give 'scannet' a folder"):
        prepare_scenes(write, JOBS, tmp_path, replace(INDEX, dataset="scannet"))
    with pytest.raises(
        DatasetError, match="prepared with no options, now it would be align = True"
    ):
        prepare_scenes(write, JOBS, tmp_path, replace(INDEX, options={"align": True}))


CHILD = """
import sys
from pathlib import Path
from tests.pointseg.datasets.test_prepare_scenes import INDEX, job, write
from dinomed3d.runtime.commands.run_command import run_command
from pointseg.datasets.prepare_scenes import prepare_scenes

def run():
    jobs = [job("a"), job("slow"), job("slow2")]
    prepare_scenes(write, jobs, Path(sys.argv[1]), INDEX, workers=int(sys.argv[2]))
    return 0

if __name__ == "__main__":
    sys.exit(run_command("child", run))
"""


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupt_leaves_whole_scenes_only_and_no_process(
    tmp_path: Path, workers: int, number: signal.Signals
) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, script, out, str(workers)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )
    part = out / "train" / ".0000.part.slow"
    end = time.monotonic() + 60
    while not (part.exists() and (out / "train" / "a" / "coord.npy").exists()):
        assert time.monotonic() < end and child.poll() is None
        time.sleep(0.02)
    child.send_signal(number)
    _, errors = child.communicate(timeout=30)  # ends when all who hold stderr have
    if number == signal.SIGKILL:
        assert part.exists() == (workers == 1)  # workers clean up behind a parent that was killed
        return
    assert child.returncode == 130 and errors == "child: interrupted\n"
    assert sorted(p.name for p in (out / "train").iterdir() if p.name != "slow2") == ["a"]
