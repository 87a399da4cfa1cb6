"""One point cloud on the CPU, as it is read, augmented and sampled: numpy arrays with a row per point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

IGNORE = -1
"""The label of points that neither train nor count."""

# What each per-point field must be. Others (of the file a cloud came from) may have any form.
FIELDS: Mapping[str, tuple[type, tuple[int | None, ...]]] = MappingProxyType(
    {
        "color": (np.float32, (3,)),  # red, green, blue, 0 to 255
        "normal": (np.float32, (3,)),  # unit length, or zero where unknown
        "strength": (np.float32, (1,)),  # LiDAR intensity, 0 to 1
        "returns": (np.float32, (2,)),  # LiDAR echoes: number / count of its pulse, 1 / count
        "height_above_ground": (np.float32, (1,)),  # metres, by ``geometry.ground``
        "segment": (np.int32, ()),  # index into the class list, or IGNORE
        "instance": (np.int32, ()),  # number of the object, or IGNORE
        "grid_coord": (np.int32, (3,)),  # voxel, >= 0; set by voxel sampling
        "image_coord": (np.float32, (None, 2)),  # (V, 2) pixels (u right, v down) in each view
        "image_mask": (np.bool_, (None,)),  # (V,) visible in each view
        "image_view": (
            np.int16,
            (),
        ),  # the one view that the two above are of, with V = 1; -1: none
        "image_shown": (np.bool_, (None,)),  # (V,) visible in each view, in addition to image_view
    }
)


@dataclass(frozen=True)
class Scene:
    """One cloud: positions in metres and named per-point fields that are always selected together.

    ``coord`` holds positions relative to ``origin``, so that georeferenced coordinates (1e7 m)
    keep their millimetres in float32; ``coord + origin`` in float64 are the positions of the file.
    """

    coord: NDArray[np.float32]
    """(N, 3) positions relative to ``origin``, metres."""
    fields: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    """(N, ...) arrays; those in ``FIELDS`` have the type and shape given there."""
    origin: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    """(3,) the position of ``coord``'s zero in the coordinates of the file, metres."""
    name: str = "cloud"
    """The scene's name, for messages and names of files."""

    def __post_init__(self) -> None:
        if not isinstance(self.coord, np.ndarray):
            raise ValueError(
                f"Scene {self.name}: 'coord' must be a numpy array, got {type(self.coord).__name__}"
            )
        if self.coord.ndim != 2 or self.coord.shape[1] != 3 or self.coord.dtype != np.float32:
            raise ValueError(
                f"Scene {self.name}: 'coord' must be (N, 3) float32, "
                f"got {self.coord.shape} {self.coord.dtype}"
            )
        for key, values in self.fields.items():
            if len(values) != len(self.coord):
                raise ValueError(
                    f"Scene {self.name}: field '{key}' must have a row for each of the "
                    f"{len(self.coord)} points, got {len(values)}"
                )
            kind, shape = FIELDS.get(key, (values.dtype.type, values.shape[1:]))
            fits = len(shape) == values.ndim - 1 and all(
                want in (None, size) for want, size in zip(shape, values.shape[1:], strict=True)
            )
            if not fits or values.dtype != kind:
                raise ValueError(
                    f"Scene {self.name}: field '{key}' must be (N, {', '.join(map(str, shape))}) "
                    f"{np.dtype(kind).name}, got {values.shape} {values.dtype}"
                )

    def __len__(self) -> int:
        return len(self.coord)

    def __contains__(self, key: str) -> bool:
        return key in self.fields

    def __getitem__(self, key: str) -> NDArray[Any]:
        if key not in self.fields:
            has = ", ".join(self.fields) or "none"
            raise KeyError(f"Scene {self.name}: there is no field '{key}'; there are: {has}")
        return self.fields[key]

    def select(self, index: NDArray[Any]) -> Scene:
        """The points at ``index`` (M integers, repeats allowed, or N booleans), all fields alike."""
        fields = {key: values[index] for key, values in self.fields.items()}
        return replace(self, coord=self.coord[index], fields=fields)

    def with_fields(self, **fields: NDArray[Any]) -> Scene:
        """The same points with these fields added or replaced."""
        return replace(self, fields={**self.fields, **fields})

    def without(self, *keys: str) -> Scene:
        """The same points without these fields, which need not be there."""
        return replace(self, fields={k: v for k, v in self.fields.items() if k not in keys})

    def moved(self, coord: NDArray[np.float32]) -> Scene:
        """The same points at other places."""
        return replace(self, coord=np.ascontiguousarray(coord, dtype=np.float32))
