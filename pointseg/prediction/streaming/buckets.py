"""Points of a cloud on disk, sorted into buckets of the ground plane that hold whole voxels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinomed3d.runtime.errors import UserError
from dinomed3d.runtime.files.atomic_files import WriteError
from pointseg.geometry.voxels import voxel_downsample
from pointseg.prediction.streaming.partition import Partition, columns_of_voxels
from pointseg.scene import Scene

POINTS = 1_000_000
"""Points of a bucket, about."""
MOST = 30_000_000
"""Points of a bucket that fit into memory."""


@dataclass(frozen=True)
class Bucket:
    """What is known of a bucket; its numbers are in files."""

    number: int
    """Of the files."""
    points: int
    """How many there are."""
    voxels: int = 0
    """How many of them hold points."""
    low: tuple[float, float] = (0.0, 0.0)
    """Minimum of x and y of the first points of its voxels, metres."""
    high: tuple[float, float] = (0.0, 0.0)
    """Maximum."""
    sha256: str = ""
    """Of all files together."""

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> Bucket:
        """From what ``dataclasses.asdict`` gave, read from JSON."""
        (x0, y0), (x1, y1) = saved["low"], saved["high"]
        return cls(**{**saved, "low": (x0, y0), "high": (x1, y1)})


class Buckets:
    """The files of all buckets in a folder."""

    def __init__(self, folder: Path, channels: int, count: int) -> None:
        """Name the files.

        Args:
            folder: where they are.
            channels: values of each point as well as its position.
            count: points of the cloud, with or without position.
        """
        self.folder, self._columns = folder, 3 + channels
        self._index = np.dtype("<u4" if count <= 2**32 else "<u8")

    @property
    def bytes_of_point(self) -> int:
        """Disk that a point takes at most: its row and index, its voxel, and that if it is alone there."""
        return 4 * self._columns + self._index.itemsize + 4 + PLACE.itemsize

    def append(self, number: int, index: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Add points: (n,) where the file has them, ascending, (n, 3 + channels) positions and fields."""
        for kind, values in (("index", index.astype(self._index)), ("rows", rows)):
            path = self._path(number, kind)
            try:
                with open(path, "ab") as stream:
                    stream.write(np.ascontiguousarray(values).data)
            except OSError as error:
                raise WriteError(error.errno, error.strerror or str(error), str(path)) from error

    def find_voxels(self, number: int, points: int, voxel_m: float) -> Bucket:
        """Note the voxel of each point of a bucket, and the first point and the points of each voxel.

        Raises:
            UserError: too many points for the memory above each other.
        """
        if points > MOST:
            raise UserError(
                f"{points:,} points lie above each other in a few columns of voxels, more than are held in memory; "
                "are they missing returns? Remove them, or choose larger voxels"
            )
        coord = self.rows(number)[:, :3]
        firsts, inverse = voxel_downsample(Scene(coord=np.ascontiguousarray(coord)), voxel_m)
        places = np.empty(len(firsts), PLACE)
        places["xy"], places["points"] = firsts.coord[:, :2], np.bincount(inverse)
        for kind, values in (("voxel", inverse.astype("<i4")), ("places", places)):
            path = self._path(number, kind)
            try:
                path.write_bytes(values.tobytes())
            except OSError as error:
                raise WriteError(error.errno, error.strerror or str(error), str(path)) from error
        (x0, y0), (x1, y1) = places["xy"].min(0).tolist(), places["xy"].max(0).tolist()
        digest = self.digest(number)
        return Bucket(number, points, len(places), (x0, y0), (x1, y1), digest)

    def digest(self, number: int) -> str:
        """SHA-256 of the files of a bucket; "" if one is missing."""
        found = hashlib.sha256()
        try:
            for kind in ("index", "rows", "voxel", "places"):
                with open(self._path(number, kind), "rb") as stream:
                    while block := stream.read(2**22):
                        found.update(block)
        except OSError:
            return ""
        return found.hexdigest()

    def index(self, number: int) -> NDArray[Any]:
        """(n,) where the file has the points."""
        return np.fromfile(self._path(number, "index"), self._index)

    def rows(self, number: int) -> NDArray[np.float32]:
        """(n, 3 + channels) positions and fields."""
        return np.fromfile(self._path(number, "rows"), np.float32).reshape(-1, self._columns)

    def voxel(self, number: int) -> NDArray[np.int32]:
        """(n,) the voxel of each point, a row of ``places``."""
        return np.fromfile(self._path(number, "voxel"), "<i4")

    def places(self, number: int) -> NDArray[Any]:
        """(v,) of ``PLACE``."""
        return np.fromfile(self._path(number, "places"), PLACE)

    def _path(self, number: int, kind: str) -> Path:
        return self.folder / f"{number:06d}.{kind}"


PLACE = np.dtype([("xy", "<f4", (2,)), ("points", "<u4")])
"""The first point of a voxel in the ground plane, and how many points the voxel holds."""


def spill(
    parts: Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]],
    buckets: Buckets,
    partition: Partition,
    voxel_m: float,
) -> list[int]:
    """Sort points into buckets.

    Args:
        parts: pieces of the cloud: where the file has the points, and their rows.
        buckets: that are filled; there are none yet.
        partition: says which bucket.
        voxel_m: side of a voxel, metres.

    Returns:
        The points of each bucket.
    """
    points = np.zeros(partition.count, np.int64)
    for index, rows in parts:
        columns = columns_of_voxels(rows, voxel_m)
        found = partition.find(columns)
        order = np.argsort(found, kind="stable")
        counts = np.bincount(found, minlength=partition.count)
        ends = np.cumsum(counts)
        for number in np.flatnonzero(counts).tolist():
            held = order[ends[number] - counts[number] : ends[number]]
            buckets.append(number, index[held], rows[held])
        points += counts
    return [int(count) for count in points]


def intersecting(
    buckets: Sequence[Bucket], low: tuple[float, float], high: tuple[float, float]
) -> list[Bucket]:
    """The buckets with voxels that may be in a rectangle, borders included."""
    return [
        bucket
        for bucket in buckets
        if all(bucket.high[i] >= low[i] and bucket.low[i] <= high[i] for i in (0, 1))
    ]
