"""Checks SemanticKITTI's official files and writes an index of the scans; the files stay where they are."""

from __future__ import annotations

from pathlib import Path

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.prepare_scenes import Preparation, Report, check_index
from pointseg.datasets.prepared import Index, find_index, relative_source, write_index
from pointseg.datasets.semantickitti.dataset import NAME, OFFICIAL_COUNTS, SPLITS, UNLABELLED

POINT_BYTES, LABEL_BYTES = 16, 4


def prepare(
    source: Path, out: Path, *, images: Path | None = None, report: Report | None = None
) -> Preparation:
    """Check the sizes of all files and index the scans.

    Args:
        source: the folder with ``sequences``, or the one above it (``dataset``'s).
        out: where the index goes; it may be ``source``.
        images: the folder with ``sequences/00/image_2`` and so on, or the one above it; None: they lie in
            ``source``, if there are any.
        report: told about progress, by sequences.

    Raises:
        DatasetError: ``source`` is not SemanticKITTI; ``images`` has none; ``out`` holds another dataset.
    """
    base = _with_sequences(source)
    if not (base / "sequences").is_dir():
        raise DatasetError(
            f"{source}: must be the folder of the official download with sequences/00 and so on"
        )
    pictures = base if images is None else _with_sequences(images)
    if images is not None and not any(pictures.glob("sequences/*/image_2")):
        raise DatasetError(
            f"{images}: must hold sequences/00/image_2 and so on, the odometry benchmark's colour images"
        )
    before = find_index(out)
    index = Index(
        dataset=NAME,
        splits={},
        fields=("strength",),
        source=relative_source(base, out),
        images=(before.images if before else None)
        if images is None
        else relative_source(pictures, out),
    )
    check_index(out, index)
    splits: dict[str, tuple[str, ...]] = {}
    failed: dict[str, str] = {}
    notes, done, total = [], 0, sum(map(len, SPLITS.values()))
    for split, sequences in SPLITS.items():
        scans: list[str] = []
        for sequence in sequences:
            folder = base / "sequences" / sequence
            names = sorted(path.stem for path in (folder / "velodyne").glob("*.bin"))
            shown = {
                path.stem for path in (pictures / "sequences" / sequence / "image_2").glob("*.png")
            }
            unseen = len(set(names) - shown)
            if shown and unseen:
                notes.append(f"{split}: sequence {sequence}: {unseen} scans have no image")
            if not names:
                notes.append(f"{split}: sequence {sequence} is not there")
            for name in names:
                problem = _problem(folder, name, labelled=split not in UNLABELLED)
                if problem:
                    failed[f"{split}/{sequence}/{name}"] = problem
                else:
                    scans.append(f"{sequence}/{name}")
            done += 1
            if report:
                report(done, 0, total)
        splits[split] = tuple(scans)
        if len(scans) != OFFICIAL_COUNTS[split]:
            notes.append(
                f"{split}: {len(scans)} of the official {OFFICIAL_COUNTS[split]} scans are ready"
            )
    if not any(splits.values()) and not failed:
        raise DatasetError(f"{base}: its sequences hold no velodyne/*.bin, thus no scans")
    write_index(
        out,
        Index(
            dataset=NAME,
            splits=splits,
            fields=index.fields,
            source=index.source,
            images=index.images,
            failed=failed,
        ),
    )
    return Preparation(splits, 0, failed, tuple(notes))


def _with_sequences(folder: Path) -> Path:
    return folder / "dataset" if (folder / "dataset" / "sequences").is_dir() else folder


def _problem(folder: Path, name: str, *, labelled: bool) -> str:
    """What is wrong with a scan, by the sizes of its files; "" if nothing is."""
    points = folder / "velodyne" / f"{name}.bin"
    size = points.stat().st_size
    if size == 0 or size % POINT_BYTES:
        return (
            f"{points}: has {size} bytes, no whole number of points of {POINT_BYTES}: it is cut off"
        )
    labels = folder / "labels" / f"{name}.label"
    if not labelled:
        return ""
    if not labels.is_file():
        return f"{labels}: is missing; download the labels"
    count, found = size // POINT_BYTES, labels.stat().st_size
    if found != count * LABEL_BYTES:
        return f"{labels}: must have {count * LABEL_BYTES} bytes for {count} points, got {found}"
    return ""
