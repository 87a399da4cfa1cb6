"""A box room with a table, rendered into Structured3D's official form by casting rays.

Panoramas and perspective views come from one geometry. Rays follow the text of the dataset's documentation, not
the code under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Vector = Sequence[float]
WALL, FLOOR, TABLE, COUNTER, CEILING = 1, 2, 7, 12, 22
ROOM = np.array([[0, 0, 0], [4, 3, 2.5]], float)
"""Lower and upper corner in metres."""
OBJECTS = {
    TABLE: np.array([[2.6, 0.4, 0], [3.4, 1.0, 0.8]], float),
    COUNTER: np.array([[0.2, 2.2, 0], [0.8, 2.8, 1.1]], float),
}
COLORS = {
    WALL: (200, 190, 180), FLOOR: (120, 80, 40), TABLE: (30, 60, 200), COUNTER: (10, 200, 20),
    CEILING: (250, 250, 250),
}  # fmt: skip
PERSPECTIVE, PANORAMA = (60, 100), (64, 128)
"""Height and width of the images."""
HALF_ANGLES = (0.7, 0.4)


def cast(origin: Vector, rays: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """(H, W) how many times a ray goes to the first surface, and (H, W) the NYU40 id there."""
    origin = np.asarray(origin, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = np.sort((ROOM[:, None, None] - origin) / rays, axis=0)
        distance, axis = far.min(-1), far.argmin(-1)
        upwards = np.take_along_axis(rays, axis[..., None], -1)[..., 0] > 0
        kind = np.where(axis < 2, WALL, np.where(upwards, CEILING, FLOOR))
        for number, box in OBJECTS.items():
            near, far = np.sort((box[:, None, None] - origin) / rays, axis=0)
            enter, leave = near.max(-1), far.min(-1)
            hit = (enter > 0) & (enter < leave) & (enter < distance)
            distance, kind = np.where(hit, enter, distance), np.where(hit, number, kind)
    return distance, kind


def write_view(folder: Path, distance: NDArray[np.float64], kind: NDArray[Any]) -> None:
    """Colour, depth in millimetres and semantics, this as a palette image."""
    folder.mkdir(parents=True)
    table = np.zeros((256, 3), np.uint8)
    for number, color in COLORS.items():
        table[number] = color
    Image.fromarray(table[kind]).save(folder / "rgb_rawlight.png")
    Image.fromarray(np.rint(distance * 1000).astype(np.uint16)).save(folder / "depth.png")
    ids = Image.fromarray(kind.astype(np.uint8)).convert("P")
    ids.putpalette(np.roll(table, 1, 1).tobytes())
    ids.save(folder / "semantic.png")


def write_perspective(
    room: Path, name: str, at: Vector, view: Vector, up: Vector = (0, 0, 1)
) -> None:
    """A view from ``at`` (metres) along ``view``; directions of any length."""
    forward = np.asarray(view, float) / np.linalg.norm(view)
    right = np.cross(forward, np.asarray(up, float))
    right /= np.linalg.norm(right)
    top = np.cross(right, forward)
    (height, width), (across, down) = PERSPECTIVE, HALF_ANGLES
    x = np.tan(across) * (2 * (np.arange(width) + 0.5) / width - 1)
    y = np.tan(down) * (1 - 2 * (np.arange(height) + 0.5) / height)
    rays = forward + x[None, :, None] * right + y[:, None, None] * top
    folder = room / "perspective" / "full" / name
    write_view(folder, *cast(at, rays))  # rays are 1 long along the axis: distance is z-depth
    numbers = [*(1000 * np.asarray(at, float)), *forward, *top, across, down, 1]
    (folder / "camera_pose.txt").write_text(" ".join(f"{number:.6f}" for number in numbers))


def write_panorama(room: Path, at: Vector) -> None:
    height, width = PANORAMA
    azimuth = ((np.arange(width) + 0.5) / width - 0.5) * 2 * np.pi
    elevation = (0.5 - (np.arange(height) + 0.5) / height)[:, None] * np.pi
    rays = np.empty((height, width, 3))
    rays[..., 0] = np.cos(elevation) * np.sin(azimuth)  # azimuth = atan2(dx, dy)
    rays[..., 1] = np.cos(elevation) * np.cos(azimuth)
    rays[..., 2] = np.sin(elevation)
    write_view(room / "panorama" / "full", *cast(at, rays))
    where = " ".join(f"{1000 * number:.3f}" for number in at)
    (room / "panorama" / "camera_xyz.txt").write_text(where + "\n")


def write_room(root: Path, scene: str = "scene_00000", room: str = "485142") -> Path:
    """Three perspective views and a panorama; returns the folder of the room."""
    folder = root / "Structured3D" / scene / "2D_rendering" / room
    write_perspective(folder, "0", (1.0, 1.2, 1.5), (0.8, -0.3, -0.3))
    write_perspective(folder, "1", (3.5, 2.5, 1.4), (-1, 0.1, -0.4))
    write_perspective(folder, "10", (1.8, 0.5, 1.6), (0.1, 1, 0.25), up=(0, 0.1, 1))
    write_panorama(folder, (1.7, 1.9, 1.3))
    return folder


def distance_to_surfaces(points: NDArray[Any]) -> dict[int, NDArray[np.float64]]:
    """(N,) metres from points to the nearest surface of each kind."""
    low, high = np.abs(points - ROOM[0]), np.abs(points - ROOM[1])
    found = {
        WALL: np.minimum(low[:, :2], high[:, :2]).min(1), FLOOR: low[:, 2], CEILING: high[:, 2],
    }  # fmt: skip
    for number, box in OBJECTS.items():
        outside = np.maximum(box[0] - points, points - box[1])
        found[number] = np.abs(outside.max(1))
    return found
