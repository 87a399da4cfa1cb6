"""Datasets that ``pointseg-prepare`` has prepared.

``<root>/dataset.json`` names the dataset, its splits and their scenes. Those that are converted also have
``<root>/<split>/<scene>/{coord,color,normal,segment,instance}.npy`` (ScanNet: segment20 and segment200;
Structured3D: no instance).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pointseg.datasets.classes import ClassList
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.index import read_index
from pointseg.datasets.named_scenes import NamedScenes
from pointseg.datasets.scene_arrays import check_arrays, load_array
from pointseg.scene import IGNORE, Scene

if TYPE_CHECKING:
    from pointseg.images.readers.frame import Frame

CAMERAS = "cameras.json"
"""File in the folder of a scene that describes its images (``pointseg.images.readers.manifest``)."""


class IndexedDataset(NamedScenes):
    """A dataset whose splits and scenes are listed in an index."""

    def __init__(
        self, root: Path, name: str, *, prepared_as: str | None = None, official: str | None = None
    ) -> None:
        """Read the index.

        Args:
            root: the folder that ``pointseg-prepare`` was given as ``--out``.
            name: of the dataset.
            prepared_as: the name in its index, where that is another one.
            official: a folder of the official files, which are read in place; None: they are not read.

        Raises:
            DatasetError: ``root`` is not prepared, or the official files are no longer there.
        """
        self.root = root
        self.index = read_index(root, prepared_as or name)
        super().__init__(name, self.index.splits)
        self.source = root / (self.index.source or "")
        if official is not None and not (self.source / official).is_dir():
            raise DatasetError(
                f"dataset '{name}': {root} refers to the official files in {self.source / official}, which "
                f"are missing; prepare it again from where they are now"
            )


class PreparedScenes(IndexedDataset):
    """A dataset whose scenes are folders of arrays."""

    def __init__(
        self,
        root: Path,
        *,
        name: str,
        prepared_as: str,
        classes: ClassList,
        label: str = "segment",
        unlabelled: Sequence[str] = (),
        has_instances: bool = True,
    ) -> None:
        """Open a prepared dataset.

        Args:
            root: the folder that ``pointseg-prepare`` was given as ``--out``.
            name: of the dataset.
            prepared_as: the name in its index.
            classes: what the labels mean.
            label: the array that holds them.
            unlabelled: splits whose scenes have none.
            has_instances: whether labelled scenes say which object each point is of.

        Raises:
            DatasetError: ``root`` is not prepared.
        """
        super().__init__(root, name, prepared_as=prepared_as)
        self.classes = classes
        self.fields = frozenset(self.index.fields)
        self._label = label
        self._unlabelled = frozenset(unlabelled)
        self._has_instances = has_instances

    def load(self, split: str, scene: str) -> Scene:
        """Load one scene.

        Raises:
            DatasetError: there is no such scene, or its files are missing, damaged or do not fit.
        """
        self.require(split, scene)
        folder = self.root / split / scene
        coord = load_array(folder, "coord", None, 3).astype(np.float32, copy=False)
        found: dict[str, NDArray[Any]] = {
            key: load_array(folder, key, len(coord), 3).astype(np.float32, copy=False)
            for key in sorted(self.fields)
        }
        if split not in self._unlabelled:
            segment = load_array(folder, self._label, len(coord), None).astype(np.int32)
            self._check_labels(folder, segment)
            found["segment"] = segment
            if self._has_instances:
                instance = load_array(folder, "instance", len(coord), None)
                found["instance"] = instance.astype(np.int32)
        return Scene(coord=coord, fields=found, name=scene)

    def look_at(self, split: str, scene: str) -> None:
        """Check the arrays of a scene by their headers and sizes."""
        self.require(split, scene)
        columns: dict[str, int | None] = {"coord": 3, **dict.fromkeys(sorted(self.fields), 3)}
        if split not in self._unlabelled:
            columns[self._label] = None
            if self._has_instances:
                columns["instance"] = None
        check_arrays(self.root / split / scene, columns)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        """The posed images of a scene; () if it has none.

        Raises:
            UserError: there is no such scene; the dataset was prepared without images; the description of
                the cameras is damaged.
        """
        from pointseg.images.readers.manifest import read_manifest

        self.require(split, scene)
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
