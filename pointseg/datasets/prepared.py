"""What ``pointseg-prepare`` leaves behind: an index of all scenes and, indoors, a folder of arrays for each.

``<root>/dataset.json`` names the dataset, its splits and their scenes. ScanNet and S3DIS also have
``<root>/<split>/<scene>/{coord,color,normal,segment,instance}.npy`` (Pointcept's layout; ScanNet has
segment20 and segment200). A scene's folder gets its name when all of its files are written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.atomic_files import new_file, new_folder
from pointseg.datasets.dataset import ClassList, require_scene, require_split
from pointseg.datasets.errors import DatasetError
from pointseg.files.errors import CloudFileError
from pointseg.files.npy import read_array
from pointseg.scene import IGNORE, Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

INDEX = "dataset.json"
CAMERAS = "cameras.json"
"""In the folder of a scene: its images, in the format of ``pointseg.images.readers.manifest``."""
FORMAT = "pointseg-dataset-1"


@dataclass(frozen=True, kw_only=True)
class Index:
    """The contents of ``dataset.json``."""

    dataset: str
    splits: Mapping[str, tuple[str, ...]]
    """Names of the scenes of each split."""
    fields: tuple[str, ...]
    """Those of color, normal and strength that every scene has."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """How it was prepared; scenes prepared otherwise must not be mixed with these."""
    source: str | None = None
    """Where the official files lie, if they are read as they are; relative to the index, or absolute."""
    images: str | None = None
    """Where the official images lie that were prepared, too, or that are read as they are; None: none were
    asked for, or they lie with the official files."""
    files: Mapping[str, Any] = field(default_factory=dict)
    """What is known of each scene's files, if they are read as they are."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Scenes left out, and why."""
    complete: bool = True
    """False while the scenes are being prepared."""


def write_index(root: Path, index: Index) -> None:
    """Write ``dataset.json``, whole or not at all.

    Raises:
        CloudFileError: the system refuses to.
    """
    text = json.dumps({"format": FORMAT, **asdict(index)}, indent=1)
    with new_file(root / INDEX) as part:
        part.write_text(text + "\n", encoding="utf-8")


def read_index(root: Path, dataset: str) -> Index:
    """What ``dataset.json`` says, of a dataset that is prepared.

    Raises:
        DatasetError: it is not there, damaged, of another dataset or version, or not finished.
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
    """What ``dataset.json`` says, finished or not; None if there is none.

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
            raise DatasetError(f"{path}: holds keys it must not: {', '.join(sorted(unknown))}")
        splits = {str(split): tuple(names) for split, names in found.pop("splits").items()}
        return Index(**{**found, "fields": tuple(found["fields"])}, splits=splits)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError(
            f"{path}: is damaged ({error}); delete it and prepare the dataset again"
        ) from error


def relative_source(source: Path, out: Path) -> str:
    """How the index refers to the official files: relative where they lie below it, so that both can move."""
    base, folder = source.resolve(), out.resolve()
    return base.relative_to(folder).as_posix() if base.is_relative_to(folder) else str(base)


class PreparedScenes:
    """A dataset whose scenes are folders of arrays; all but the names is the dataset's own."""

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        prepared_as: str,
        classes: ClassList,
        label: str = "segment",
        unlabelled: Sequence[str] = (),
    ) -> None:
        """Open a prepared dataset.

        Args:
            root: the folder that ``pointseg-prepare`` was given as ``--out``.
            name: of the dataset.
            prepared_as: the name in its index.
            classes: what the labels mean.
            label: the array that holds them.
            unlabelled: splits whose scenes have none.

        Raises:
            DatasetError: ``root`` is not prepared.
        """
        self.name = name
        self.classes = classes
        self.root = root
        self.index = read_index(root, prepared_as)
        self.fields = frozenset(self.index.fields)
        self._label = label
        self._unlabelled = frozenset(unlabelled)

    def splits(self) -> tuple[str, ...]:
        """Names of its splits."""
        return tuple(self.index.splits)

    def scenes(self, split: str) -> tuple[str, ...]:
        """Names of the scenes of a split.

        Raises:
            DatasetError: there is no such split.
        """
        require_split(self.name, split, self.splits())
        return self.index.splits[split]

    def load(self, split: str, scene: str) -> Scene:
        """One cloud.

        Raises:
            DatasetError: there is no such scene, or its files are missing, damaged or do not fit.
        """
        require_scene(self.name, split, scene, self.scenes(split))
        folder = self.root / split / scene
        coord = _rows(folder, "coord", None, 3).astype(np.float32, copy=False)
        found: dict[str, NDArray[Any]] = {
            key: _rows(folder, key, len(coord), 3).astype(np.float32, copy=False)
            for key in sorted(self.fields)
        }
        if split not in self._unlabelled:
            segment = _rows(folder, self._label, len(coord), None).astype(np.int32)
            self._check_labels(folder, segment)
            found["segment"] = segment
            found["instance"] = _rows(folder, "instance", len(coord), None).astype(np.int32)
        return Scene(coord=coord, fields=found, name=scene)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The posed images of a scene; () where there are none.

        Raises:
            UserError: there is no such scene; the dataset was prepared without images; the description of
                the cameras is damaged.
        """
        from pointseg.images.readers.manifest import read_manifest

        require_scene(self.name, split, scene, self.scenes(split))
        path = self.root / split / scene / CAMERAS
        if path.is_file():
            return read_manifest(path)
        if self.index.images is None:
            raise DatasetError(
                f"dataset '{self.name}': {self.root} was prepared without images; add them with: "
                f"pointseg-prepare --dataset {self.index.dataset} --source DOWNLOADED --out {self.root} --images"
            )
        return ()

    def _check_labels(self, folder: Path, segment: NDArray[np.int32]) -> None:
        wrong = (segment < IGNORE) | (segment >= len(self.classes))
        if wrong.any():
            ids = ", ".join(map(str, np.unique(segment[wrong])[:10]))
            raise DatasetError(
                f"{folder / self._label}.npy: labels must be {IGNORE} to {len(self.classes) - 1}, "
                f"{int(wrong.sum())} points have {ids}"
            )


def save_scene(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write the arrays of a scene; ``folder`` appears when all are written, replacing an older one.

    Raises:
        WriteError: the system refuses to write; nothing is left behind then.
    """
    remove_parts(folder)
    with new_folder(folder) as part:
        for name, values in arrays.items():
            np.save(part / f"{name}.npy", np.ascontiguousarray(values), allow_pickle=False)


def remove_parts(folder: Path) -> None:
    """Remove what a process that was killed left of this scene."""
    for part in folder.parent.glob(f".*.part.{folder.name}"):
        shutil.rmtree(part, ignore_errors=True)


def is_saved(folder: Path, names: Iterable[str]) -> bool:
    """Whether a scene's arrays are all there and as long as their headers say."""
    try:
        for name in names:
            with open(folder / f"{name}.npy", "rb") as stream:
                np.lib.format.read_magic(stream)
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                size = stream.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
                if os.fstat(stream.fileno()).st_size != size:
                    return False
    except (OSError, ValueError, EOFError):
        return False
    return True


def _rows(folder: Path, name: str, count: int | None, columns: int | None) -> NDArray[Any]:
    """An array of the shape that is expected."""
    path = folder / f"{name}.npy"
    again = "prepare the dataset again: scenes that are whole are kept"
    try:
        values = read_array(path)
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; {again}") from error
    except CloudFileError as error:
        raise DatasetError(f"{error}; {again}") from error
    numbers = values.dtype.kind in ("iu" if columns is None else "fiu")
    shape = (len(values) if count is None else count,) + (() if columns is None else (columns,))
    if values.shape != shape or not numbers:
        kind = "whole numbers" if columns is None else "numbers"
        raise DatasetError(
            f"{path}: must hold {shape} {kind}, a row for each point, got {values.shape} {values.dtype}; {again}"
        )
    return values
