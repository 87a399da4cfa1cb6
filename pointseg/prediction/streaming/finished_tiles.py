"""The classes of finished tiles, which a run that was stopped finds again."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.files.atomic_files import atomic_write, new_file
from pointseg.evaluation.tiling import Tile
from pointseg.files.labelling.certainty import MEASURES, SavedCertainty
from pointseg.files.labelling.labels import SavedLabels
from pointseg.files.table.pieces import ranges
from pointseg.prediction.results.point_classes import PointClasses, reject
from pointseg.scene import IGNORE

AT_ONCE = 32_000_000
"""Points of the file whose classes are gathered at once."""
OTHERS = "several-lists"
"""A file that says that finished tiles are of several lists, between which the memory ran out."""


class FinishedTiles:
    """The classes of tiles, a file each: its SHA-256, the number of points, their places in the file, their classes.

    How sure these are comes last, if that is kept.
    """

    def __init__(
        self, folder: Path, count: int, classes: int, *, with_certainty: bool = False
    ) -> None:
        """Find what an earlier run has finished; damaged files are removed.

        Args:
            folder: of the files.
            count: points of the cloud's file.
            classes: of the model.
            with_certainty: whether it is kept how sure classes are.
        """
        self.with_certainty = with_certainty
        """Whether it is kept how sure classes are."""
        self._folder, self._count = folder, count
        self._index = np.dtype("<u4" if count <= 2**32 else "<u8")
        self._kind = np.dtype("<i2" if classes < 2**15 else "<i4")
        self._names: dict[str, Path] = {}
        self._begun = 0
        self._known: NDArray[np.bool_] | None = None
        self.points = 0
        """Points that have a class."""
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.glob("*.tile")):
            found = self._read(path)
            if found is None:
                path.unlink()
                continue
            self._names[path.stem.split("-")[1]] = path
            self.points += len(found.places)
        self.found = len(self._names)
        """Tiles of an earlier run."""
        if (folder / OTHERS).exists():
            self.expect_others()
        self._next = 1 + max((int(p.stem.split("-")[0]) for p in self._names.values()), default=0)

    @staticmethod
    def bytes_of_point(*, with_certainty: bool) -> int:
        """Disk that a point takes, about."""
        return 14 if with_certainty else 8

    def begin(self) -> None:
        """A list of tiles begins; after the first it is another one, which meets what that has left."""
        self._begun += 1
        if self._begun > 1:
            self.expect_others()

    def expect_others(self) -> None:
        """Files of other tiles may be there: look which points they hold, now and in runs to come."""
        atomic_write(self._folder / OTHERS, b"")
        self._known = np.zeros(self._count, bool)
        for path in self._names.values():
            if (found := self._read(path)) is not None:
                self._known[found.places] = True
        self.points = int(self._known.sum())

    def has(self, tile: Tile) -> bool:
        """Whether a tile is finished."""
        return _name(tile) in self._names

    def covers(self, index: NDArray[np.int64]) -> bool:
        """Whether finished tiles of another list hold all of these points."""
        return self._known is not None and bool(self._known[index].all())

    def add(
        self,
        tile: Tile,
        index: NDArray[np.int64],
        labels: NDArray[np.int32],
        certainty: NDArray[np.uint16] | None,
    ) -> None:
        """Write the classes of a tile, of points in ascending order, and how sure they are if that is kept."""
        content = np.int64(len(index)).tobytes()
        content += index.astype(self._index).tobytes() + labels.astype(self._kind).tobytes()
        if certainty is not None:
            content += certainty.astype(SavedCertainty.dtype).tobytes()
        name = _name(tile)
        path = self._folder / f"{self._next:08d}-{name}.tile"
        atomic_write(path, hashlib.sha256(content).digest() + content)
        self._next += 1
        self._names[name] = path
        if self._known is None:
            self.points += len(index)
        else:
            self._known[index] = True
            self.points = int(self._known.sum())

    def gather(self, folder: Path, confidence: float | None = None) -> PointClasses:
        """The class of each point of the file, and how sure it is if that was kept; of points in no tile -1.

        Args:
            folder: receives files of these numbers.
            confidence: below which points have no class; needs that it was kept. None: all keep theirs.
        """
        classes, certainties = folder / "classes", folder / "certainty"
        rejected = 0
        with ExitStack() as opened:
            labels_part = opened.enter_context(new_file(classes))
            labels_stream = opened.enter_context(open(labels_part, "wb"))
            if self.with_certainty:
                certainty_part = opened.enter_context(new_file(certainties))
                certainty_stream = opened.enter_context(open(certainty_part, "wb"))
            for start, stop in ranges(self._count, AT_ONCE):
                labels, certainty = self._gathered(start, stop)
                if confidence is not None:
                    rejected += reject(labels, certainty, confidence)
                labels_stream.write(labels.tobytes())
                if self.with_certainty:
                    certainty_stream.write(certainty.tobytes())
        return PointClasses(
            labels=SavedLabels(classes, self._kind, self._count),
            certainty=SavedCertainty(certainties, self._count) if self.with_certainty else None,
            rejected=rejected,
        )

    def _gathered(self, start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.uint16]]:
        """Classes of some points of the file, and how sure they are, (0, 3) if that was not kept."""
        count = stop - start if self.with_certainty else 0
        labels = np.full(stop - start, IGNORE, self._kind)
        certainty = np.zeros((count, len(MEASURES)), SavedCertainty.dtype)
        for tile in sorted(self._names.values()):  # a later one counts more
            found = self._read(tile, check=start == 0)
            if found is None:
                raise OSError(5, "a finished tile is damaged", str(tile))
            first, last = np.searchsorted(found.places, [start, stop])
            places = found.places[first:last].astype(np.int64) - start
            labels[places] = found.labels[first:last]
            if self.with_certainty:
                certainty[places] = found.certainty[first:last]
        return labels, certainty

    def _read(self, path: Path, *, check: bool = True) -> _Finished | None:
        """What a tile's file holds; None: it is damaged."""
        content = path.read_bytes()
        if check and hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        count = int(np.frombuffer(content, np.int64, 1, 32)[0])
        index = np.frombuffer(content, self._index, count, 40)
        labels = np.frombuffer(content, self._kind, count, 40 + index.nbytes)
        at, width = 40 + index.nbytes + labels.nbytes, len(MEASURES)
        numbers = width * count if self.with_certainty else 0
        certainty = np.frombuffer(content, SavedCertainty.dtype, numbers, at).reshape(-1, width)
        return _Finished(index, labels, certainty)


class _Finished(NamedTuple):
    """A finished tile."""

    places: NDArray[Any]
    """(n,) places of its points in the file."""
    labels: NDArray[Any]
    """(n,) their classes."""
    certainty: NDArray[np.uint16]
    """(n, 3) how sure these are; (0, 3) if that was not kept."""


def _name(tile: Tile) -> str:
    """The same for the same tile, whichever list it is of."""
    return hashlib.sha256(repr(tile).encode()).hexdigest()[:24]
