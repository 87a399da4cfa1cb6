"""Reads nuScenes' tables and writes an index of the lidar keyframes; the files stay where they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pointseg.datasets.errors import DatasetError
from pointseg.datasets.nuscenes.cameras import CHANNELS, read_cameras, write_cameras
from pointseg.datasets.nuscenes.dataset import NAME, OFFICIAL_COUNTS, RAW_NAMES, VERSIONS, split_of
from pointseg.datasets.nuscenes.tables import Keyframe, read_keyframes, read_table
from pointseg.datasets.prepare_scenes import Preparation, Report, check_index
from pointseg.datasets.prepared import Index, find_index, relative_source, write_index

POINT_BYTES = 20
SPLITS = ("train", "val", "test")


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
        out: where the index goes; it may be ``source``.
        version: v1.0-trainval, v1.0-mini or v1.0-test; None: trainval and test as far as they are
            there, otherwise mini.
        images: the folder with ``samples/CAM_FRONT`` and so on, which may be ``source``: where the cameras of
            the keyframes stand is written beside the index; None: not, unless it was before.
        report: told about progress, by keyframes.

    Raises:
        DatasetError: ``source`` is not nuScenes, has no lidarseg, or its categories are others;
            ``out`` holds another dataset or version.
    """
    versions = _versions(source, version)
    start = Index(
        dataset=NAME,
        splits={},
        fields=("strength",),
        options={"versions": list(versions)},
        source=relative_source(source, out),
    )
    check_index(out, start)
    before = find_index(out)
    pictures = None if before is None else before.images
    if images is not None:
        if not (images / "samples" / CHANNELS[0]).is_dir():
            raise DatasetError(
                f"{images}: must hold the images in samples/{CHANNELS[0]} and so on; unpack the camera blobs"
            )
        pictures = relative_source(images, out)
    keyframes: list[tuple[str, Keyframe]] = []
    notes: list[str] = []
    for each in versions:
        if each != "v1.0-test":
            _require_lidarseg(source, each)
        _check_categories(source / each / "category.json")
        strangers = set()
        own: list[Keyframe] = []
        for keyframe in read_keyframes(source, each):
            split = split_of(each, keyframe.scene)
            if split is None:
                strangers.add(keyframe.scene)
            else:
                keyframes.append((split, keyframe))
                own.append(keyframe)
        if images is not None and own:
            cameras, lacking = read_cameras(source, each, own)
            write_cameras(out, own, cameras)
            if lacking:
                token, what = next(iter(lacking.items()))
                notes.append(
                    f"{each}: {len(lacking)} keyframes lack images, such as {token}: it {what}"
                )
        if strangers:
            notes.append(
                f"{each}: left out scenes that are not in its lists: {', '.join(sorted(strangers))}"
            )
    ready: dict[str, list[str]] = {
        split: [] for split in SPLITS if any(split == found for found, _ in keyframes)
    }
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
    if "v1.0-mini" not in versions:
        notes += [
            f"{split}: {len(tokens)} of the official {OFFICIAL_COUNTS[split]} keyframes are ready"
            for split, tokens in splits.items()
            if len(tokens) != OFFICIAL_COUNTS[split]
        ]
    write_index(
        out,
        Index(
            dataset=NAME,
            splits=splits,
            fields=start.fields,
            options=start.options,
            source=start.source,
            images=pictures,
            files=files,
            failed=failed,
        ),
    )
    return Preparation(splits, 0, failed, tuple(notes))


def _versions(source: Path, wanted: str | None) -> tuple[str, ...]:
    there = [version for version in VERSIONS if (source / version).is_dir()]
    if wanted is not None and wanted not in VERSIONS:
        raise DatasetError(
            f"nuscenes: version must be one of {', '.join(VERSIONS)}, got '{wanted}'"
        )
    if not there or (wanted is not None and wanted not in there):
        raise DatasetError(
            f"{source}: must hold the tables in {wanted or ' or '.join(VERSIONS)}; "
            f"it holds {', '.join(there) or 'none'}"
        )
    if not (source / "samples").is_dir():
        raise DatasetError(
            f"{source}: must hold the scans in samples/LIDAR_TOP, it has no 'samples'"
        )
    if wanted is not None:
        return (wanted,)
    whole = tuple(version for version in there if version != "v1.0-mini")
    return whole or ("v1.0-mini",)


def _require_lidarseg(source: Path, version: str) -> None:
    if not (source / version / "lidarseg.json").is_file():
        raise DatasetError(
            f"{source / version}: has no lidarseg.json, thus no labels; download nuScenes-lidarseg for {version} "
            f"and unpack it into {source}"
        )


def _check_categories(path: Path) -> None:
    """Refuse label ids that mean other things than those this program maps."""
    if not path.is_file():
        return
    for row in read_table(path, "name"):
        number = row.get("index")
        known = isinstance(number, int) and 0 <= number < len(RAW_NAMES)
        if number is not None and not (known and RAW_NAMES[number] == row["name"]):
            raise DatasetError(
                f"{path}: label {number} must be "
                f"'{RAW_NAMES[number] if known else 'unused'}', it is '{row['name']}'"
            )


def _problem(source: Path, keyframe: Keyframe, *, labelled: bool) -> str:
    """What is wrong with a keyframe, by the sizes of its files; "" if nothing is."""
    points = source / keyframe.points
    if not points.is_file():
        return f"{points}: is missing; unpack all parts of the download"
    size = points.stat().st_size
    if size == 0 or size % POINT_BYTES:
        return (
            f"{points}: has {size} bytes, no whole number of points of {POINT_BYTES}: it is cut off"
        )
    if not labelled:
        return ""
    if keyframe.labels is None:
        return f"{points}: lidarseg.json names no labels for it"
    labels = source / keyframe.labels
    if not labels.is_file():
        return f"{labels}: is missing; unpack nuScenes-lidarseg so that it lies there"
    if labels.stat().st_size != size // POINT_BYTES:
        return f"{labels}: must have a byte for each of {size // POINT_BYTES} points, got {labels.stat().st_size}"
    return ""
