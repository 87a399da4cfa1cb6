"""Checks SemanticKITTI's official files, which stay in place, and writes an index of the scans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.index import Index, check_index, stored_images, stored_path, write_index
from pointseg.datasets.prepare_scenes import Preparation, Report, missing_scenes
from pointseg.datasets.scan_files import scan_problem
from pointseg.datasets.semantickitti.dataset import (
    CAMERA,
    LABEL_BYTES,
    NAME,
    OFFICIAL_COUNTS,
    POINT_BYTES,
    SPLITS,
    UNLABELLED,
)


def prepare(
    source: Path, out: Path, *, images: Path | None = None, report: Report | None = None
) -> Preparation:
    """Check the sizes of all files and index the scans.

    Args:
        source: the folder with ``sequences``, or the one above it (of ``dataset``).
        out: folder of the index; it may be ``source``.
        images: the folder with ``sequences/00/image_2`` and so on, or the one above it; None: they are in
            ``source``, if there are any.
        report: called after each sequence.

    Raises:
        DatasetError: ``source`` is not SemanticKITTI; ``images`` has none; ``out`` holds another dataset.
    """
    base = _with_sequences(source)
    if not (base / "sequences").is_dir():
        raise DatasetError(
            f"{source}: must be the folder of the official download with sequences/00 and so on"
        )
    pictures = None if images is None else _with_sequences(images)
    if pictures is not None and not any(pictures.glob(f"sequences/*/image_{CAMERA}")):
        raise DatasetError(
            f"{images}: must hold the colour images of the odometry benchmark, sequences/00/image_{CAMERA} "
            f"and so on"
        )
    index = Index(
        dataset=NAME,
        splits={},
        fields=("strength",),
        source=stored_path(base, out),
        images=stored_images(pictures, out),
    )
    check_index(out, index)
    splits: dict[str, tuple[str, ...]] = {}
    failed: dict[str, str] = {}
    notes: list[str] = []
    done, total = 0, sum(map(len, SPLITS.values()))
    for split, sequences in SPLITS.items():
        scans: list[str] = []
        for sequence in sequences:
            ready, broken = _check_sequence(base, sequence, labelled=split not in UNLABELLED)
            scans += ready
            failed |= {f"{split}/{name}": problem for name, problem in broken.items()}
            if not ready and not broken:
                notes.append(f"{split}: sequence {sequence} is missing")
            unseen = _without_image(pictures or base, sequence, [*ready, *broken])
            if unseen:
                notes.append(f"{split}: sequence {sequence}: {unseen} scans have no image")
            done += 1
            if report:
                report(done, 0, total)
        splits[split] = tuple(scans)
    if not any(splits.values()) and not failed:
        raise DatasetError(f"{base}: its sequences hold no scans (velodyne/*.bin)")
    notes += missing_scenes(splits, OFFICIAL_COUNTS, "scans are ready")
    write_index(out, replace(index, splits=splits, failed=failed))
    return Preparation(splits, 0, failed, tuple(notes))


def _with_sequences(folder: Path) -> Path:
    return folder / "dataset" if (folder / "dataset" / "sequences").is_dir() else folder


def _check_sequence(
    base: Path, sequence: str, *, labelled: bool
) -> tuple[list[str], dict[str, str]]:
    """Names of the scans of a sequence that are ready, and what is wrong with the others."""
    folder = base / "sequences" / sequence
    ready: list[str] = []
    failed: dict[str, str] = {}
    for points in sorted((folder / "velodyne").glob("*.bin")):
        labels = folder / "labels" / f"{points.stem}.label" if labelled else None
        problem = scan_problem(points, labels, point_bytes=POINT_BYTES, label_bytes=LABEL_BYTES)
        if problem:
            failed[f"{sequence}/{points.stem}"] = problem
        else:
            ready.append(f"{sequence}/{points.stem}")
    return ready, failed


def _without_image(images: Path, sequence: str, names: list[str]) -> int:
    """How many of some scans have no image, if the sequence has images at all."""
    folder = images / "sequences" / sequence / f"image_{CAMERA}"
    shown = {f"{sequence}/{path.stem}" for path in folder.glob("*.png")}
    return len(set(names) - shown) if shown else 0
