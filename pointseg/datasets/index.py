"""``dataset.json``: the index of a prepared dataset, written by ``pointseg-prepare``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dinomed3d.runtime.files.atomic_files import new_file
from pointseg.datasets.errors import DatasetError

INDEX = "dataset.json"
FORMAT = "pointseg-dataset-1"


@dataclass(frozen=True, kw_only=True)
class Index:
    """The contents of ``dataset.json``."""

    dataset: str
    """Name of the dataset."""
    splits: Mapping[str, tuple[str, ...]]
    """Names of the scenes of each split."""
    fields: tuple[str, ...]
    """Fields that every scene has, of color, normal and strength."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the preparation; scenes prepared with others must not be mixed with these."""
    source: str | None = None
    """Folder of the official files, if they are read in place: relative to the index, or absolute."""
    images: str | None = None
    """Folder of the official images; None: not prepared, or in ``source``."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """The files of each scene, if they are read in place."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Scenes that were left out, and why."""
    complete: bool = True
    """Whether the preparation has finished."""


def write_index(root: Path, index: Index) -> None:
    """Write ``dataset.json``.

    Raises:
        WriteError: the system refuses to.
    """
    text = json.dumps({"format": FORMAT, **asdict(index)}, indent=1)
    with new_file(root / INDEX) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_index(root: Path, dataset: str) -> Index:
    """Read ``dataset.json`` of a prepared dataset.

    Raises:
        DatasetError: it is missing, damaged, of another dataset or version, or unfinished.
    """
    index = find_index(root)
    how = f"pointseg-prepare --dataset {dataset} --source DOWNLOADED --out {root}"
    if index is None:
        raise DatasetError(
            f"dataset '{dataset}': {root} is not prepared (it has no {INDEX}); prepare it from the official "
            f"download with: {how}"
        )
    if index.dataset != dataset:
        raise DatasetError(f"dataset '{dataset}': {root} holds '{index.dataset}', see its {INDEX}")
    if not index.complete:
        raise DatasetError(
            f"dataset '{dataset}': preparing {root} was interrupted; go on with: {how}"
        )
    return index


def find_index(root: Path) -> Index | None:
    """Read ``dataset.json``, finished or not; None if there is none.

    Raises:
        DatasetError: it is damaged, or of another version.
    """
    path = root / INDEX
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        version = found.pop("format", None)
        if version != FORMAT:
            raise DatasetError(f"{path}: 'format' must be {FORMAT}, got {version!r}")
        unknown = set(found) - {known.name for known in fields(Index)}
        if unknown:
            raise DatasetError(f"{path}: has unknown keys: {', '.join(sorted(unknown))}")
        splits = {str(split): tuple(names) for split, names in found.pop("splits").items()}
        return Index(**{**found, "fields": tuple(found["fields"])}, splits=splits)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{path}: is damaged ({error}); delete it and prepare the dataset again"
        ) from error


def check_index(root: Path, index: Index) -> None:
    """Refuse to mix datasets, or scenes that were prepared with different options.

    Raises:
        DatasetError: ``root`` holds something else.
    """
    found = find_index(root)
    if found is None:
        return
    if found.dataset != index.dataset:
        raise DatasetError(
            f"{root}: holds '{found.dataset}' already; give '{index.dataset}' a folder of its own"
        )
    if dict(found.options) != dict(index.options):
        before, now = (
            ", ".join(f"{key} = {value}" for key, value in each.options.items()) or "no options"
            for each in (found, index)
        )
        raise DatasetError(
            f"{root}: was prepared with {before}, now it would be {now}; give another folder, or delete "
            f"{root / INDEX} and the scenes"
        )


def stored_path(source: Path, root: Path) -> str:
    """How the index of ``root`` names a folder: relative if it is below, so that both can move together."""
    base, folder = source.resolve(), root.resolve()
    return base.relative_to(folder).as_posix() if base.is_relative_to(folder) else str(base)


def stored_images(images: Path | None, root: Path) -> str | None:
    """How the index of ``root`` names the folder of images; None for ``images``: as it does already."""
    if images is not None:
        return stored_path(images, root)
    before = find_index(root)
    return None if before is None else before.images
