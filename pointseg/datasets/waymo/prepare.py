"""Prepares the Waymo Open Dataset: the labelled frames of its Parquet tables become arrays.

A segment, 20 seconds of one drive, is the unit of work. A frame that cannot be made does not stop the others of
its segment; it is listed with the failures, and tried again by the next run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from dinomed3d.runtime.files.atomic_files import atomic_write, new_file
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.index import Index, stored_images, write_index
from pointseg.datasets.prepare_scenes import (
    Job,
    Preparation,
    Report,
    complete_scene,
    missing_scenes,
    prepare_scenes,
)
from pointseg.datasets.prepared import CAMERAS
from pointseg.datasets.scene_arrays import is_saved, load_array, save_scene
from pointseg.datasets.waymo.classes import NAME
from pointseg.datasets.waymo.dataset import (
    ARRAYS,
    FOLDERS,
    LABELS,
    TIMESTAMPS,
    UNLABELLED,
)
from pointseg.datasets.waymo.points import labelled_frames, open_segment, read_frames

OFFICIAL_COUNTS: Mapping[str, int] = MappingProxyType({"train": 798, "val": 202, "test": 150})
"""Segments of each split in the whole dataset."""
FAILED = "failed.json"
"""File in the folder of a segment that names its frames that could not be made."""


@dataclass(frozen=True)
class SegmentTask:
    """One segment to prepare."""

    folder: Path
    """Folder of its split in the official download."""
    segment: str
    """Its name."""
    frames: frozenset[int] | None
    """Timestamps of its frames that are wanted; None: those with labels, which are read."""
    images: Path | None = None
    """Folder of its split with the images; None: they are not prepared."""


def prepare(
    source: Path,
    out: Path,
    *,
    images: Path | None = None,
    frames: Path | None = None,
    workers: int = 1,
    report: Report | None = None,
) -> Preparation:
    """Prepare the Waymo Open Dataset, version 2.

    Args:
        source: the folder with ``training``, ``validation`` and perhaps ``testing``.
        out: root of the prepared dataset.
        images: the same for the images, which may be ``source``; None: images are not prepared.
        frames: the published list of test frames, lines ``SEGMENT,TIMESTAMP``; None: no test frames.
        workers: number of processes.
        report: called after each segment.

    Raises:
        DatasetError: ``source`` is not this dataset, or the list is damaged; see also ``prepare_scenes``.
    """
    wanted = {} if frames is None else read_frame_list(frames)
    jobs, notes = _jobs(source, images, wanted)
    if not jobs:
        raise DatasetError(
            f"{source}: must be the folder of the Waymo Open Dataset, version 2, with training/lidar/*.parquet and "
            "so on, has no segment" + ("" if not notes else f" ({notes[0]})")
        )
    index = Index(
        dataset=NAME,
        splits={s: tuple(job.scene for job in jobs if job.split == s) for s in FOLDERS},
        fields=("strength",),
        images=stored_images(images, out),
    )
    notes += missing_scenes(index.splits, OFFICIAL_COUNTS, "segments are there")
    for job in jobs:  # frames that failed are tried again
        if (out / job.name / FAILED).is_file():
            (out / job.name / f"{TIMESTAMPS}.npy").unlink(missing_ok=True)
    result = prepare_scenes(
        prepare_segment, jobs, out, index, workers=workers, report=report, notes=notes
    )
    bad = _failed_frames(out, result)
    if bad:
        result = replace(result, failed={**result.failed, **bad})
        write_index(out, replace(index, splits=result.splits, failed=result.failed))
    return result


def _jobs(
    source: Path, images: Path | None, wanted: Mapping[str, frozenset[int]]
) -> tuple[list[Job[SegmentTask]], list[str]]:
    """The segments to prepare, and notes."""
    jobs: list[Job[SegmentTask]] = []
    skipped = 0
    for split, folders in FOLDERS.items():
        for folder in folders:
            for path in sorted((source / folder / "lidar").glob("*.parquet")):
                frames = wanted.get(path.stem)
                if split in UNLABELLED and frames is None:
                    skipped += 1
                    continue
                shown = None if images is None else images / folder
                task = SegmentTask(
                    path.parent.parent, path.stem, frames if split in UNLABELLED else None, shown
                )
                cameras = shown is not None
                jobs.append(Job(split, path.stem, task, (TIMESTAMPS,), cameras=cameras))
    if not skipped:
        return jobs, []
    how = "they are not in the list of test frames" if wanted else "give the list of test frames"
    return jobs, [f"test: left out {skipped} segments: {how} (--frames)"]


def read_frame_list(path: Path) -> dict[str, frozenset[int]]:
    """Timestamps of the test frames by segment, from lines ``SEGMENT,TIMESTAMP``.

    Raises:
        DatasetError: it is missing or malformed.
    """
    found: dict[str, set[int]] = {}
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"--frames {path}: cannot be read: {error}") from error
    for line in filter(None, map(str.strip, lines)):
        segment, comma, timestamp = line.partition(",")
        if not comma or not timestamp.strip().isdecimal():
            raise DatasetError(
                f"--frames {path}: lines must be SEGMENT,TIMESTAMP, got {line[:80]!r}"
            )
        found.setdefault(segment.strip(), set()).add(int(timestamp))
    return {segment: frozenset(frames) for segment, frames in found.items()}


def prepare_segment(task: SegmentTask, target: Path) -> list[str]:
    """Write the missing frames and images of one segment; returns notes.

    Raises:
        UserError: a table is missing or damaged, or no frame can be made.
    """

    def save_cameras() -> list[str]:
        from pointseg.datasets.waymo.images import prepare_images

        assert task.images is not None
        timestamps = load_array(target, TIMESTAMPS, None, None).tolist()
        return prepare_images(task.images, target, frozenset(timestamps))

    cameras = None if task.images is None else save_cameras
    return complete_scene(target, (TIMESTAMPS,), lambda: _prepare_frames(task, target), cameras)


def _prepare_frames(task: SegmentTask, target: Path) -> list[str]:
    labelled = task.frames is None
    frames = task.frames
    if frames is None:
        frames = labelled_frames(task.folder, task.segment)
    arrays = ARRAYS + LABELS if labelled else ARRAYS
    ready = {frame for frame in frames if is_saved(target / str(frame), arrays)}
    segment = open_segment(task.folder, task.segment, frames - ready, labelled=labelled)
    for frame, found in read_frames(segment):
        (target / CAMERAS).unlink(missing_ok=True)  # it lists all frames
        save_scene(target / str(frame), found)
        ready.add(frame)
    if frames and not ready:
        reason = next(iter(segment.failed.values()))
        raise DatasetError(f"none of its {len(frames)} frames can be prepared: {reason}")
    return _finish(target, sorted(ready), segment.failed)


def _finish(target: Path, ready: Sequence[int], failed: Mapping[int, str]) -> list[str]:
    """Write the list of frames, which marks a segment as done, and the failures."""
    target.mkdir(parents=True, exist_ok=True)
    if failed:
        atomic_write(target / FAILED, json.dumps({str(k): v for k, v in failed.items()}).encode())
    else:
        (target / FAILED).unlink(missing_ok=True)
    with new_file(target / f"{TIMESTAMPS}.npy") as part, open(part, "wb") as stream:
        np.save(stream, np.array(ready, np.int64), allow_pickle=False)
    return [] if ready else ["has no frame with labels"]


def _failed_frames(out: Path, result: Preparation) -> dict[str, str]:
    """Frames of the ready segments that could not be made, as split/segment/timestamp, and why."""
    found: dict[str, str] = {}
    for split, segments in result.splits.items():
        for segment in segments:
            path = out / split / segment / FAILED
            if path.is_file():
                reasons = json.loads(path.read_text(encoding="utf-8"))
                found |= {f"{split}/{segment}/{frame}": why for frame, why in reasons.items()}
    return found
