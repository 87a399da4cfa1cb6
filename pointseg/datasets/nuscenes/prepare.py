"""Reads nuScenes' tables and writes an index of the lidar keyframes; the official files stay in place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.index import Index, check_index, stored_images, stored_path, write_index
from pointseg.datasets.nuscenes.cameras import CHANNELS, read_cameras, write_cameras
from pointseg.datasets.nuscenes.dataset import (
    LABEL_BYTES,
    NAME,
    OFFICIAL_COUNTS,
    POINT_BYTES,
    RAW_NAMES,
    VERSIONS,
    split_of,
)
from pointseg.datasets.nuscenes.tables import Keyframe, read_keyframes, read_table
from pointseg.datasets.prepare_scenes import Preparation, Report, missing_scenes
from pointseg.datasets.scan_files import scan_problem

SPLITS = ("train", "val", "test")
TEST, MINI = "v1.0-test", "v1.0-mini"


def prepare(
    source: Path,
    out: Path,
    *,
    version: str | None = None,
    images: Path | None = None,
    report: Report | None = None,
) -> Preparation:
    """Index the keyframes, and check the sizes of their files.

    Args:
        source: the folder with the tables (``v1.0-trainval``), ``samples`` and ``lidarseg``.
        out: folder of the index; it may be ``source``.
        version: v1.0-trainval, v1.0-mini or v1.0-test; None: trainval and test as far as they exist, else
            mini.
        images: the folder with ``samples/CAM_FRONT`` and so on, which may be ``source``; the poses of the
            cameras are then written next to the index. None: images are not prepared.
        report: called for every hundredth keyframe.

    Raises:
        DatasetError: ``source`` is not nuScenes, has no lidarseg, or has other categories; ``out`` holds
            another dataset or version.
    """
    versions = _versions(source, version)
    if images is not None and not (images / "samples" / CHANNELS[0]).is_dir():
        raise DatasetError(
            f"{images}: must hold the images in samples/{CHANNELS[0]} and so on; unpack the camera blobs"
        )
    index = Index(
        dataset=NAME,
        splits={},
        fields=("strength",),
        options={"versions": list(versions)},
        source=stored_path(source, out),
    )
    check_index(out, index)
    index = replace(index, images=stored_images(images, out))
    keyframes: list[tuple[str, Keyframe]] = []
    notes: list[str] = []
    for each in versions:
        own, more = _keyframes(source, each)
        notes += more
        if images is not None and own:
            cameras, lacking = read_cameras(source, each, [keyframe for _, keyframe in own])
            write_cameras(out, [keyframe for _, keyframe in own], cameras)
            if lacking:
                token, what = next(iter(lacking.items()))
                notes.append(
                    f"{each}: {len(lacking)} keyframes lack images, such as {token}: it {what}"
                )
        keyframes += own
    index = _checked(source, index, keyframes, report)
    if MINI not in versions:
        notes += missing_scenes(index.splits, OFFICIAL_COUNTS, "keyframes are ready")
    write_index(out, index)
    return Preparation(index.splits, 0, index.failed, tuple(notes))


def _keyframes(source: Path, version: str) -> tuple[list[tuple[str, Keyframe]], list[str]]:
    """The keyframes of a version with their splits; notes."""
    if version != TEST:
        _require_lidarseg(source, version)
    _check_categories(source / version / "category.json")
    found: list[tuple[str, Keyframe]] = []
    unknown: set[str] = set()
    for keyframe in read_keyframes(source, version):
        split = split_of(version, keyframe.scene)
        if split is None:
            unknown.add(keyframe.scene)
        else:
            found.append((split, keyframe))
    if not unknown:
        return found, []
    scenes = ", ".join(sorted(unknown))
    return found, [f"{version}: left out scenes that are not in the official lists: {scenes}"]


def _checked(
    source: Path, index: Index, keyframes: list[tuple[str, Keyframe]], report: Report | None
) -> Index:
    """The index with the keyframes whose files are complete."""
    present = {split for split, _ in keyframes}
    ready: dict[str, list[str]] = {split: [] for split in SPLITS if split in present}
    files: dict[str, Any] = {}
    failed: dict[str, str] = {}
    for done, (split, keyframe) in enumerate(keyframes, 1):
        problem = _problem(source, keyframe, labelled=split != "test")
        if problem:
            failed[f"{split}/{keyframe.token}"] = problem
        else:
            ready[split].append(keyframe.token)
            files[keyframe.token] = {
                "split": split,
                "scene": keyframe.scene,
                "sample": keyframe.sample,
                "points": keyframe.points,
                "labels": None if split == "test" else keyframe.labels,
            }
        if report and (done % 100 == 0 or done == len(keyframes)):
            report(done, 0, len(keyframes))
    splits = {split: tuple(tokens) for split, tokens in ready.items()}
    return replace(index, splits=splits, files=files, failed=failed)


def _versions(source: Path, wanted: str | None) -> tuple[str, ...]:
    present = [version for version in VERSIONS if (source / version).is_dir()]
    if wanted is not None and wanted not in VERSIONS:
        raise DatasetError(
            f"nuscenes: version must be one of {', '.join(VERSIONS)}, got '{wanted}'"
        )
    if not present or (wanted is not None and wanted not in present):
        raise DatasetError(
            f"{source}: must hold the tables in {wanted or ' or '.join(VERSIONS)}, holds "
            f"{', '.join(present) or 'none'}"
        )
    if not (source / "samples").is_dir():
        raise DatasetError(f"{source}: must hold the scans in samples/LIDAR_TOP, has no 'samples'")
    if wanted is not None:
        return (wanted,)
    return tuple(version for version in present if version != MINI) or (MINI,)


def _require_lidarseg(source: Path, version: str) -> None:
    if not (source / version / "lidarseg.json").is_file():
        raise DatasetError(
            f"{source / version}: has no lidarseg.json, thus no labels; download nuScenes-lidarseg for {version} "
            f"and unpack it into {source}"
        )


def _check_categories(path: Path) -> None:
    """Refuse label ids with other meanings than those that are mapped here."""
    if not path.is_file():
        return
    for row in read_table(path, "name"):
        number = row.get("index")
        known = isinstance(number, int) and 0 <= number < len(RAW_NAMES)
        if number is not None and not (known and RAW_NAMES[number] == row["name"]):
            needed = RAW_NAMES[number] if known else "unused"
            raise DatasetError(f"{path}: label {number} must be '{needed}', is '{row['name']}'")


def _problem(source: Path, keyframe: Keyframe, *, labelled: bool) -> str:
    """What is wrong with the files of a keyframe; "" if nothing is."""
    points, labels = source / keyframe.points, None
    if labelled:
        if keyframe.labels is None:
            return f"{points}: has no labels in lidarseg.json"
        labels = source / keyframe.labels
    return scan_problem(points, labels, point_bytes=POINT_BYTES, label_bytes=LABEL_BYTES)
