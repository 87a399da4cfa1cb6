"""A cloud whose classes are found tile by tile, and one that is in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pointseg.evaluation.tile_predictor import TileClasses
from pointseg.evaluation.tiling import ArrayPlaces, Places, Tile
from pointseg.files.labelling.certainty import MEASURES
from pointseg.geometry.voxels import voxel_downsample
from pointseg.scene import IGNORE, Scene


@dataclass(frozen=True)
class Part:
    """The points of one tile."""

    scene: Scene
    """Positions and fields, in the order of the cloud."""
    wanted: NDArray[np.bool_]
    """(M,) whether a point is in the core of the tile; voxels are never cut: a point belongs to the tile of the
    first point of its voxel."""
    points: NDArray[np.int64]
    """(M,) where the cloud has them."""


class TiledCloud(Protocol):
    """N points, all with a position, cut into tiles."""

    name: str
    """For messages."""

    def __len__(self) -> int: ...

    @property
    def done(self) -> int:
        """Points whose class is known."""

    def places(self) -> Places:
        """The first point of each voxel, with the number of its points as weight."""

    def part(self, tile: Tile) -> Part | None:
        """The points of a tile; None: the classes of all points in its core are known."""

    def keep(self, tile: Tile, part: Part, found: TileClasses) -> None:
        """Note the classes of a part's wanted points, among those of all of its points."""


@dataclass(frozen=True)
class Kept:
    """What is kept of each point, in addition to its class."""

    width: int
    """How many numbers."""
    kind: np.dtype[Any]
    """Of which type."""
    of: Callable[[TileClasses], NDArray[Any]]
    """(M, width) those of a tile."""

    @classmethod
    def probabilities(cls, classes: int) -> Kept:
        """Those of all classes, 4 bytes each."""
        return cls(classes, np.dtype(np.float32), TileClasses.probabilities)

    @classmethod
    def certainty(cls) -> Kept:
        """Confidence, entropy and margin, 6 bytes."""
        return cls(len(MEASURES), np.dtype(np.uint16), TileClasses.certainty)

    def none_of(self, count: int) -> NDArray[Any]:
        """(count, width) zeros, those of points without a class."""
        return np.zeros((count, self.width), self.kind)


CLASS_ALONE = Kept(0, np.dtype(np.uint8), lambda found: np.empty((len(found.labels), 0), np.uint8))
"""Nothing else is kept."""


class CloudInMemory:
    """A scene in memory, and its classes."""

    def __init__(self, scene: Scene, voxel_m: float, *, keep: Kept = CLASS_ALONE) -> None:
        """Prepare a cloud.

        Args:
            scene: N points.
            voxel_m: of the network.
            keep: what is kept in addition to classes.
        """
        self._keep = keep
        self.scene, self.name = scene, scene.name
        self.labels = np.full(len(scene), IGNORE, np.int32)
        self.kept = keep.none_of(len(scene))
        bare = Scene(coord=scene.coord, name=scene.name)
        firsts, self._inverse = voxel_downsample(bare, voxel_m)
        self._coord = firsts.coord

    def __len__(self) -> int:
        return len(self.scene)

    @property
    def done(self) -> int:
        """Points whose class is known."""
        return int((self.labels != IGNORE).sum())

    def places(self) -> Places:
        """The first point of each voxel, with the number of its points as weight."""
        ground = np.ascontiguousarray(self._coord[:, :2], np.float64)
        return ArrayPlaces(ground, np.bincount(self._inverse))

    def part(self, tile: Tile) -> Part | None:
        """The points of a tile; None: the classes of all points in its core are known."""
        points, wanted = members(tile, self._coord, self._inverse)
        if (self.labels[points[wanted]] != IGNORE).all():
            return None
        return Part(self.scene.select(points), wanted, points)

    def keep(self, tile: Tile, part: Part, found: TileClasses) -> None:
        """Note the classes of a part's wanted points."""
        self.labels[part.points[part.wanted]] = found.labels[part.wanted]
        self.kept[part.points[part.wanted]] = self._keep.of(found)[part.wanted]


def members(
    tile: Tile, firsts: NDArray[np.float32], inverse: NDArray[np.integer]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(M,) which of N points are in a tile, ascending, and (M,) whether in its core.

    Args:
        tile: of the ground plane.
        firsts: (V, 2 or more) x and y of the first point of each voxel.
        inverse: (N,) the voxel of each point.
    """
    membership = np.zeros(len(firsts), np.uint8)  # 1: in the margin, 2: in the core
    index, core = tile.select(firsts)
    membership[index], membership[index[core]] = 1, 2
    of_points = membership[inverse]
    points = np.flatnonzero(of_points)
    return points, of_points[points] == 2
