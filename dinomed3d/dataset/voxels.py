"""Voxels of all cases, read in several processes: values, labels, copies, and nnU-Net's own check."""

from __future__ import annotations

import contextlib
import hashlib
import io
import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.dataset.files import RawCase
from dinomed3d.dataset.findings import CaseFault, Fault
from dinomed3d.inference.case import Case, Scan
from dinomed3d.inference.io.image import ENDINGS, read_case
from dinomed3d.runtime.commands.library_output import quiet

FAULTS: Mapping[str, Fault] = {
    "unreadable": Fault(
        topic="voxels",
        says="have a file that cannot be used",
        fix="copy or convert damaged files again; replace NaN (in NIfTI files nnU-Net's reader takes it for 0 without "
        "a word)",
    ),
    "not finite": Fault(
        topic="voxels",
        says="have voxels that are NaN or infinite",
        fix="replace them by a value that means nothing in such images (0, or the smallest)",
    ),
    "constant": Fault(
        topic="voxels",
        says="have a channel in which all voxels have one value",
        fix="check the conversion of these files, or take the cases out",
    ),
    "fraction": Fault(
        topic="labels",
        says="have labels that are no whole numbers, perhaps resampled with interpolation, or probabilities",
        fix="resample labels with nearest neighbours, and threshold probabilities",
    ),
    "unknown": Fault(
        topic="labels",
        says="have label values that dataset.json does not name",
        fix="name them in 'labels', or write the values as dataset.json has them",
    ),
    "empty": Fault(
        topic="labels",
        says="have a label without any foreground",
        fix="nothing, if there is nothing to segment in them",
        state="note",
    ),
    "nnU-Net": Fault(
        topic="voxels",
        says="are refused by nnU-Net's own check",
        fix="correct what it says; nnUNetv2_plan_and_preprocess --verify_dataset_integrity repeats it",
    ),
}
SMALL_BYTES = 100 * 2**20
"""Files of a dataset below which further processes take longer to start than they save."""


@dataclass
class CaseVoxels:
    """What the voxels of one case say."""

    case: str
    """Name of the case."""
    faults: list[CaseFault] = field(default_factory=list)
    """What is wrong."""
    values: tuple[int, ...] = ()
    """Label values that occur."""
    digests: tuple[str, ...] = ()
    """Of the voxels of each channel."""


@dataclass(frozen=True)
class Task:
    """What to look for in a case; all that another process needs."""

    case: RawCase
    """The case."""
    reader: type
    """nnU-Net's reader of the dataset."""
    labels: tuple[int, ...]
    """Values that dataset.json names; empty: they are not compared."""
    channels: int
    """Number of channels."""


def look(task: Task) -> CaseVoxels:
    """Read a case and look at its voxels.

    They are read twice: by the readers of `dinomed3d predict`, which refuse incomplete files and give values as
    stored (ITK reads missing voxels and NaN of NIfTI files as 0), and by nnU-Net's own, for its own check.
    """
    case, found = task.case, CaseVoxels(task.case.name)
    try:
        with quiet():  # faults of files are reported here
            for number, path in enumerate(case.images):
                for channel in _stored(path, task):
                    _look_at_image(channel, path, found)
                if number == 0 and case.label is not None:
                    (label,) = _stored(case.label, task, is_label=True)
                    _look_at_label(task, label, found)
                    del label
            refused = _refused(task) if case.label is not None and not found.faults else ""
    except Exception as error:  # whatever a damaged file makes a reader raise
        reason = _last_line(error).replace(f"{case.images[0].parent}{os.sep}", "")
        found.faults.append(CaseFault("unreadable", case.name, reason))
        return found
    if refused:
        found.faults.append(CaseFault("nnU-Net", case.name, refused))
    return found


def _stored(path: Path, task: Task, *, is_label: bool = False) -> list[NDArray[Any]]:
    """The channels of a file, with values as stored where the file's format is one of ours."""
    ending = next((e for e in ENDINGS if path.name.lower().endswith(e)), None)
    if ending is not None:
        scan = Scan(files=(str(path),), ending=ending)
        return list(read_case(Case(id=path.name, scans=(scan,)), ["image"]).channels)
    reader = task.reader()
    array, _ = reader.read_seg(str(path)) if is_label else reader.read_images([str(path)])
    return list(array)


def _look_at_image(channel: NDArray[Any], path: Path, found: CaseVoxels) -> None:
    """Whether the values of an image mean anything, and the digest by which copies are found."""
    finite = np.isfinite(channel)
    if not finite.all():
        detail = f"{path.name}: {int(np.count_nonzero(~finite))} voxels"
        found.faults.append(CaseFault("not finite", found.case, detail))
    elif channel.size and channel.min() == channel.max():
        found.faults.append(CaseFault("constant", found.case, f"{path.name}: {channel.flat[0]:g}"))
    found.digests += (_digest(channel),)


def _look_at_label(task: Task, label: NDArray[Any], found: CaseVoxels) -> None:
    """Compare the values of a label with those of dataset.json."""
    values = np.unique(label)
    name = task.case.name
    if not np.isfinite(values).all():
        found.faults.append(CaseFault("not finite", name, "label"))
        return
    whole = values == np.round(values)
    if not whole.all():
        some = ", ".join(f"{v:.4g}" for v in values[~whole][:3])
        found.faults.append(CaseFault("fraction", name, some))
        return
    found.values = tuple(int(v) for v in values[:1000])
    unknown = [v for v in found.values if v not in task.labels]
    if task.labels and unknown:
        shown = ", ".join(map(str, unknown[:6])) + (", ..." if len(unknown) > 6 else "")
        found.faults.append(CaseFault("unknown", name, shown))
    elif found.values == (0,):
        found.faults.append(CaseFault("empty", name))


def _refused(task: Task) -> str:
    """Why nnU-Net's own check refuses the case; empty if it does not. Each file is read once for both its parts."""
    from nnunetv2.experiment_planning.verify_dataset_integrity import check_cases, verify_labels

    images = task.reader().read_images(list(map(str, task.case.images)))
    label = task.reader().read_seg(str(task.case.label))

    class Read:
        """In place of a reader."""

        def read_images(self, files: Any) -> tuple[Any, Any]:
            return images

        def read_seg(self, file: Any) -> tuple[Any, Any]:
            return label

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        files = list(map(str, task.case.images)), str(task.case.label)
        fine = check_cases(*files, task.channels, Read)
        if task.labels:
            fine &= verify_labels(files[1], Read, list(task.labels))
    return "" if fine else " ".join(said.getvalue().split())[:200]


def look_at_all(
    tasks: Sequence[Task], processes: int, progress: Callable[[int], None]
) -> Iterator[CaseVoxels]:
    """Look at all cases, in several processes where that is worth their start.

    Args:
        tasks: cases.
        processes: at most; few files are read in this one.
        progress: called with the number of finished cases.
    """
    size = sum(task.case.size_bytes for task in tasks)
    processes = min(processes, len(tasks), 1 + size // SMALL_BYTES)
    if processes <= 1:
        for number, task in enumerate(tasks):
            yield look(task)
            progress(number + 1)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        waiting, done = {pool.submit(look, task): task for task in tasks}, 0
        try:
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    task = waiting.pop(future)
                    done += 1
                    yield _result(future, task)
                    progress(done)
        finally:
            pool.shutdown(cancel_futures=True)


def _result(future: Any, task: Task) -> CaseVoxels:
    """What a process found; a process that died costs the cases it had."""
    try:
        found: CaseVoxels = future.result()
        return found
    except Exception as error:
        name = task.case.name
        text = f"its process ended ({_last_line(error)}); perhaps for lack of memory: --processes 1"
        return CaseVoxels(name, [CaseFault("unreadable", name, text)])


def _digest(channel: NDArray[Any]) -> str:
    hasher = hashlib.blake2b(str(channel.shape).encode(), digest_size=16)
    hasher.update(np.ascontiguousarray(channel).data)
    return hasher.hexdigest()


def _last_line(error: BaseException) -> str:
    """What a library says at last; before it, it says where in its own code."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
