"""Prepares many scenes in several processes; finished scenes are kept, and a damaged one does not stop the others."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from dinomed3d.runtime.errors import UserError
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.index import Index, check_index, write_index
from pointseg.datasets.prepared import CAMERAS
from pointseg.datasets.scene_arrays import is_saved

Task = TypeVar("Task")

Report = Callable[[int, int, int], None]
"""Called after each scene with the numbers of scenes that are done, were done before, and of all."""

FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""System errors that would stop every further scene as well."""


@dataclass(frozen=True)
class Preparation:
    """Result of a preparation."""

    splits: Mapping[str, tuple[str, ...]]
    """Names of the scenes that are ready, by split."""
    kept: int = 0
    """How many of them were ready before."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Scenes that failed, as split/scene, and why."""
    notes: tuple[str, ...] = ()
    """What is out of the ordinary in the others."""


@dataclass(frozen=True)
class Job(Generic[Task]):
    """One scene to prepare."""

    split: str
    """Its split."""
    scene: str
    """Its name."""
    task: Task
    """First argument of the work."""
    arrays: tuple[str, ...]
    """Names of its arrays."""
    cameras: bool = False
    """Whether its images are prepared, too."""

    @property
    def name(self) -> str:
        """Its folder below the root."""
        return f"{self.split}/{self.scene}"


def prepare_scenes(
    work: Callable[[Task, Path], list[str]],
    jobs: Sequence[Job[Task]],
    out: Path,
    index: Index,
    *,
    workers: int = 1,
    report: Report | None = None,
    notes: Sequence[str] = (),
) -> Preparation:
    """Prepare all scenes that are not ready yet, and write the index.

    Args:
        work: prepares one scene, given its task and its folder, which appears when it is complete. Returns
            notes on what is out of the ordinary. A module-level function, which other processes can run.
        jobs: the scenes.
        out: the root of the prepared dataset.
        index: the index if no scene fails; its options must be those of the scenes that exist already.
        workers: number of processes; 1: no other process is started.
        report: called after each scene.
        notes: passed on.

    Raises:
        DatasetError: ``out`` holds another dataset, or one prepared with other options; the disk is
            full or not writable. Finished scenes are kept.
    """
    check_index(out, index)
    ready = {job.name for job in jobs if _is_ready(job, out / job.split / job.scene)}
    open_jobs = [job for job in jobs if job.name not in ready]
    if open_jobs:  # otherwise the dataset can be used meanwhile
        write_index(out, replace(index, complete=False))
    found: list[str] = list(notes)
    failed: dict[str, str] = {}
    count = len(ready)
    if report:
        report(count, len(ready), len(jobs))
    with closing(_results(work, open_jobs, out, workers)) as results:
        for job, result in results:
            count += 1
            if isinstance(result, BaseException):
                failed[job.name] = _reason(result, out)
            else:
                found += [f"{job.name}: {note}" for note in result]
            if report:
                report(count, len(ready), len(jobs))
    splits = {
        split: tuple(j.scene for j in jobs if j.split == split and j.name not in failed)
        for split in index.splits
    }
    failed = {job.name: failed[job.name] for job in jobs if job.name in failed}
    write_index(out, replace(index, splits=splits, failed=failed))
    return Preparation(splits, len(ready), failed, tuple(found))


def _is_ready(job: Job[Task], folder: Path) -> bool:
    return is_saved(folder, job.arrays) and (not job.cameras or (folder / CAMERAS).is_file())


def _reason(error: BaseException, out: Path) -> str:
    """Why one scene failed; errors that all further scenes would meet are raised."""
    if isinstance(error, OSError) and error.errno in FATAL:
        raise DatasetError(
            f"{out}: {error.strerror}; make room and run the same command again: finished scenes are kept"
        ) from error
    if isinstance(error, (BrokenProcessPool, MemoryError)):
        return "its process was killed, perhaps for lack of memory; try fewer --workers"
    if not isinstance(error, (UserError, OSError)):
        raise error  # a bug in the program, not damaged data
    return " ".join(str(error).split())


def _results(
    work: Callable[[Task, Path], list[str]], jobs: Sequence[Job[Task]], out: Path, workers: int
) -> Generator[tuple[Job[Task], list[str] | BaseException], None, None]:
    """Result of each scene, in the order in which they finish."""
    if workers > 1 and len(jobs) > 1:
        yield from _results_of_workers(work, jobs, out, min(workers, len(jobs)))
        return
    for job in jobs:
        try:
            yield job, work(job.task, out / job.split / job.scene)
        except Exception as error:
            yield job, error


def _results_of_workers(
    work: Callable[[Task, Path], list[str]], jobs: Sequence[Job[Task]], out: Path, workers: int
) -> Generator[tuple[Job[Task], list[str] | BaseException], None, None]:
    left = list(reversed(jobs))
    lost: set[str] = set()
    running: dict[Future[list[str]], Job[Task]] = {}
    others = set(multiprocessing.active_children())
    pool = _pool(workers)
    try:
        while left or running:
            broken = False
            try:
                while left and len(running) < 2 * workers:  # a short queue ends soon
                    job = left[-1]
                    folder = out / job.split / job.scene
                    running[pool.submit(_guarded, work, job.task, folder)] = job
                    left.pop()
            except BrokenProcessPool:
                broken = True
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, problem = running.pop(future), future.exception()
                if not isinstance(problem, BrokenProcessPool):
                    yield job, future.result() if problem is None else problem
                    continue
                broken = True
                if job.name in lost:
                    yield job, problem
                else:  # one of the running jobs has broken the pool of all of them
                    lost.add(job.name)
                    left.insert(0, job)
            if broken and not running:
                pool.shutdown()
                pool = _pool(workers)
    except BaseException:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # each removes its unfinished scene
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn: the same on all systems, and safe with threads
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)


_busy = False


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the parent decides
    signal.signal(signal.SIGTERM, _end_worker)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            if hasattr(signal, "pthread_kill"):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            else:
                os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _end_worker(number: int, frame: FrameType | None) -> None:
    if _busy:
        raise KeyboardInterrupt  # cleans up on its way out
    os._exit(1)


def _guarded(work: Callable[[Any, Path], list[str]], task: Any, folder: Path) -> list[str]:
    global _busy
    _busy = True
    try:
        return work(task, folder)
    except UserError as error:
        raise DatasetError(str(error)) from None  # others may not be picklable
    except KeyboardInterrupt:
        os._exit(1)
    finally:
        _busy = False


def complete_scene(
    folder: Path,
    arrays: Sequence[str],
    save_points: Callable[[], list[str]],
    save_cameras: Callable[[], list[str]] | None,
) -> list[str]:
    """Write what a scene lacks; returns notes.

    Args:
        folder: of the scene.
        arrays: names of its arrays.
        save_points: writes them, and returns notes.
        save_cameras: writes the description of its images, and returns notes; None: not needed.
    """
    notes = [] if is_saved(folder, arrays) else save_points()
    if save_cameras is not None and not (folder / CAMERAS).is_file():
        notes += save_cameras()
    return notes


def missing_scenes(
    splits: Mapping[str, Sequence[str]], official: Mapping[str, int], what: str
) -> list[str]:
    """A note on each split that has not its official number of scenes."""
    return [
        f"{split}: {len(names)} of the official {official[split]} {what}"
        for split, names in splits.items()
        if len(names) != official[split]
    ]


def first_names(names: Sequence[str]) -> str:
    """The first ten of some names, for a note."""
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
