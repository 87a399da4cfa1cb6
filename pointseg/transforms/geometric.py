"""Geometric transforms. Normals rotate with the points; ``image_coord`` and ``image_mask`` do not change."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pointseg.scene import Scene
from pointseg.transforms.select import check_box

NOISE_CELLS = 128
"""The noise of an elastic distortion repeats after so many cells along an axis."""


@dataclass(frozen=True, kw_only=True)
class CenterShift:
    """Moves the centre of the bounding box to x = y = 0, and its floor to z = 0.

    ``origin`` follows, so that ``coord + origin`` stays where it was.
    """

    floor: bool = True
    """Whether heights are moved, too."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene around the origin."""
        if len(scene) == 0:
            return scene
        low = scene.coord.min(axis=0).astype(np.float64)
        return self.moved(scene, low, scene.coord.max(axis=0))

    def moved(
        self, scene: Scene, low: NDArray[np.floating[Any]], high: NDArray[np.floating[Any]]
    ) -> Scene:
        """Points of a scene with these bounds, (3,) each, where the scene is moved to."""
        shift = (low + high) / 2
        shift[2] = low[2] if self.floor else 0.0
        coord = (scene.coord - shift).astype(np.float32)
        return replace(scene, coord=coord, origin=scene.origin + shift)


@dataclass(frozen=True, kw_only=True)
class UnitSphere:
    """Moves the mean of the points to the origin, and scales them so that the largest radius is 1.

    ``origin`` is left: the coordinates are no longer those of the file.
    """

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene within the unit sphere; points that all coincide are only moved."""
        if len(scene) == 0:
            return scene
        coord = scene.coord.astype(np.float64)
        coord -= coord.mean(axis=0)
        radius = float(np.sqrt(np.square(coord).sum(axis=1).max()))
        return scene.moved((coord / (radius or 1.0)).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class RandomRotate:
    """Rotates about an axis through the origin, with some probability."""

    axis: str
    """The axis of rotation: x, y or z."""
    degrees: float
    """The angle is uniform in +- degrees; counter-clockwise seen from the axis's tip."""
    probability: float = 1.0
    """The probability that the scene is rotated."""

    def __post_init__(self) -> None:
        if self.axis not in ("x", "y", "z"):
            raise ValueError(f"RandomRotate: 'axis' must be x, y or z, got {self.axis!r}")

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The rotated scene."""
        if rng.random() >= self.probability:
            return scene
        return rotate(scene, self.axis, rng.uniform(-self.degrees, self.degrees))


@dataclass(frozen=True, kw_only=True)
class RandomScale:
    """Multiplies coordinates by one random factor."""

    low: float
    """The smallest factor, above 0."""
    high: float
    """The largest factor; it is uniform in between."""

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(
                f"RandomScale: must have 0 < low <= high, got {self.low} and {self.high}"
            )

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scaled scene."""
        return scene.moved(scene.coord * np.float32(rng.uniform(self.low, self.high)))


@dataclass(frozen=True, kw_only=True)
class RandomFlip:
    """With some probability each, x becomes -x, and y becomes -y."""

    probability: float = 0.5
    """The probability of each flip."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene, flipped along x, y, both or neither."""
        x, y = rng.random(2) < self.probability
        return flip(scene, x=bool(x), y=bool(y))


@dataclass(frozen=True, kw_only=True)
class RandomJitter:
    """Adds clipped normal noise to each coordinate of each point."""

    std_m: float = 0.005
    """Standard deviation of the noise, metres."""
    clip_m: float = 0.02
    """The noise is clipped to plus and minus this, metres."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene with noise on its positions."""
        noise = rng.standard_normal(scene.coord.shape, dtype=np.float32) * np.float32(self.std_m)
        return scene.moved(scene.coord + noise.clip(-self.clip_m, self.clip_m))


@dataclass(frozen=True, kw_only=True)
class ElasticDistortion:
    """With some probability, points move by smooth random fields, one after the other.

    A field is normal noise on a grid, smoothed twice by a mean of three cells along each axis and
    read trilinearly. Normals stay: the fields are weak (about 0.1 of their magnitude).

    Source: Choy 2019, arXiv:1904.08755. Differs: fields of more than NOISE_CELLS cells along an axis
    repeat, so that their memory does not grow with the scene.
    """

    fields: tuple[tuple[float, float], ...] = ((0.2, 0.4), (0.8, 1.6))
    """(edge of the grid's cells in metres, magnitude in metres) of each."""
    probability: float = 0.95
    """The probability that the scene is distorted."""

    def __post_init__(self) -> None:
        if any(len(pair) != 2 or pair[0] <= 0 for pair in self.fields):
            raise ValueError(
                f"ElasticDistortion: 'fields' must be pairs of metres, cells above 0, got {self.fields}"
            )

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The distorted scene."""
        if rng.random() >= self.probability or len(scene) == 0:
            return scene
        coord = scene.coord
        for cell_m, magnitude_m in self.fields:
            coord = coord + np.float32(magnitude_m) * _smooth_noise(coord, cell_m, rng)
        return scene.moved(coord)


@dataclass(frozen=True, kw_only=True)
class ClampToBox:
    """Points outside a box are moved onto its nearest face, as in the released code of PTv3 for LiDAR scans.

    They pile up there; :class:`pointseg.transforms.select.DropOutside` leaves them out instead.
    """

    box_m: tuple[float, ...]
    """x, y, z minima, then maxima, metres."""

    def __post_init__(self) -> None:
        check_box(self.box_m, "ClampToBox")

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Scene:
        """The scene within the box."""
        return scene.moved(np.clip(scene.coord, self.box_m[:3], self.box_m[3:]))


def rotate(scene: Scene, axis: str, degrees: float) -> Scene:
    """Rotate points and normals about an axis (x, y, z) through the origin; quarter turns are exact."""
    quarters = degrees / 90
    if quarters == round(quarters):
        cos, sin = ((1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0))[round(quarters) % 4]
    else:
        cos, sin = float(np.cos(np.deg2rad(degrees))), float(np.sin(np.deg2rad(degrees)))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    turn = np.eye(3)
    turn[[first, second], [first, second]] = cos
    turn[second, first], turn[first, second] = sin, -sin
    return _mapped(scene, turn)


def flip(scene: Scene, *, x: bool, y: bool) -> Scene:
    """Mirror points and normals: x to -x, y to -y, or both."""
    if not (x or y):
        return scene
    return _mapped(scene, np.diag([-1.0 if x else 1.0, -1.0 if y else 1.0, 1.0]))


def _mapped(scene: Scene, matrix: NDArray[np.float64]) -> Scene:
    """Points and normals times an orthogonal matrix."""
    transposed = matrix.T.astype(np.float32)
    moved = scene.moved(scene.coord @ transposed)
    return moved.with_fields(normal=scene["normal"] @ transposed) if "normal" in scene else moved


def _smooth_noise(
    coord: NDArray[np.float32], cell_m: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """(N, 3) three smooth random fields at (N, 3) points."""
    low = coord.min(axis=0)
    # One cell before the first point and two after the last, so that every point is between cells.
    wanted = np.floor((coord.max(axis=0) - low).astype(np.float64) / cell_m) + 3
    shape = np.minimum(wanted, NOISE_CELLS).astype(int)
    modes = ["wrap" if many else "constant" for many in wanted > NOISE_CELLS]
    places = (coord - low).T / np.float32(cell_m) + 1  # (3, N) in cells
    moved = np.empty_like(coord)
    for axis in range(3):
        field = rng.standard_normal(tuple(shape), dtype=np.float32)
        for _ in range(2):
            for along, mode in enumerate(modes):
                field = ndimage.uniform_filter1d(field, 3, axis=along, mode=mode)
        moved[:, axis] = ndimage.map_coordinates(field, places, order=1, mode="grid-wrap")
    return moved
