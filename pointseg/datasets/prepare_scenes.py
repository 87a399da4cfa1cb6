"""Preparing many scenes: in several processes, what is finished is kept, one bad scene costs only itself."""

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
from pointseg.datasets.prepared import INDEX, Index, find_index, is_saved, write_index

Task = TypeVar("Task")

Report = Callable[[int, int, int], None]
"""Told after each scene: how many are done, how many of these were done before, how many there are."""

FATAL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Errors of the system that every further scene would meet as well."""


@dataclass(frozen=True)
class Preparation:
    """What has become of the scenes."""

    splits: Mapping[str, tuple[str, ...]]
    """Those that are ready, by split."""
    kept: int = 0
    """How many of them were ready before."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Those that are not, as split/scene, and why."""
    notes: tuple[str, ...] = ()
    """What the reader should know of the others."""


@dataclass(frozen=True)
class Job(Generic[Task]):
    """One scene to prepare."""

    split: str
    scene: str
    task: Task
    """What the work is given, with the folder to write as second argument."""
    arrays: tuple[str, ...]
    """The arrays that the scene has when it is ready."""
    files: tuple[str, ...] = ()
    """Other files that it has then."""

    @property
    def name(self) -> str:
        """Where it will lie below the root."""
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
        work: prepares one scene: its task and the folder to be, which appears whole or not at all.
            Returns notes on what was out of the ordinary. A function of a module, so that other
            processes can run it.
        jobs: the scenes.
        out: the root of the prepared dataset.
        index: as it shall be, but for scenes that fail; its options must be those of the scenes
            that are there already.
        workers: processes; 1 works in this one.
        report: told about progress.
        notes: handed on.

    Raises:
        DatasetError: ``out`` holds another dataset, or one prepared with other options; the disk is
            full or not writable. Scenes that are finished by then are kept.
    """
    check_index(out, index)
    ready = {job.name for job in jobs if _is_ready(job, out / job.split / job.scene)}
    open_jobs = [job for job in jobs if job.name not in ready]
    if open_jobs:  # otherwise those who read it meanwhile need not notice
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
    return is_saved(folder, job.arrays) and all((folder / name).is_file() for name in job.files)


def check_index(out: Path, index: Index) -> None:
    """Refuse to mix datasets, or scenes that were prepared in different ways.

    Raises:
        DatasetError: ``out`` holds something else.
    """
    found = find_index(out)
    if found is None:
        return
    if found.dataset != index.dataset:
        raise DatasetError(
            f"{out}: holds '{found.dataset}' already; give '{index.dataset}' a folder of its own"
        )
    if dict(found.options) != dict(index.options):
        raise DatasetError(
            f"{out}: was prepared with {_listed(found.options)}, now it would be {_listed(index.options)}; "
            f"give another folder, or delete {out / INDEX} and the scenes"
        )


def _listed(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in options.items()) or "no options"


def _reason(error: BaseException, out: Path) -> str:
    """Why one scene failed; errors that all further scenes would meet are raised."""
    if isinstance(error, OSError) and error.errno in FATAL:
        raise DatasetError(
            f"{out}: {error.strerror}; make room and run the same command again: finished scenes are kept"
        ) from error
    if isinstance(error, (BrokenProcessPool, MemoryError)):
        return "its process was killed, perhaps for lack of memory; try fewer --workers"
    if not isinstance(error, (UserError, OSError)):
        raise error  # a defect of the program, which shall not pass for one of the data
    return " ".join(str(error).split())


def _results(
    work: Callable[[Task, Path], list[str]], jobs: Sequence[Job[Task]], out: Path, workers: int
) -> Generator[tuple[Job[Task], list[str] | BaseException], None, None]:
    """What became of each scene, in the order in which they end."""
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
    strangers = set(multiprocessing.active_children())
    pool = _pool(workers)
    try:
        while left or running:
            broken = False
            try:
                while (
                    left and len(running) < 2 * workers
                ):  # no long queue: it ends soon when told to
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
                else:  # all that ran have lost their pool, through the fault of one of them
                    lost.add(job.name)
                    left.insert(0, job)
            if broken and not running:
                pool.shutdown()
                pool = _pool(workers)
    except BaseException:
        for process in set(multiprocessing.active_children()) - strangers:
            process.terminate()  # told to end: each removes the scene that it has not finished
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    # spawn: the same on all systems, and safe beside threads
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)


_busy = False


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the keyboard reaches all; the parent decides
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
        raise DatasetError(str(error)) from None  # others may not survive the way to the parent
    except KeyboardInterrupt:
        os._exit(1)
    finally:
        _busy = False
