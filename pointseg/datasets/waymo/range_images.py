"""From the range images of a laser scanner to points in the frame of the vehicle.

Source: Sun 2020, arXiv:1912.04838, and the dataset's documentation of range images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LaserCalibration:
    """Where a scanner sits on the car and where its beams point."""

    to_vehicle: NDArray[np.float64]
    """(4, 4) pose, scanner to vehicle."""
    inclinations: NDArray[np.float64] | None
    """(H,) angles of the beams against the scanner's xy plane, radians, ascending; None: they are uniform."""
    lowest: float
    """Lower end of the angles of uniform beams, radians."""
    highest: float
    """Upper end of them."""

    def beams(self, height: int) -> NDArray[np.float64]:
        """(height,) inclination of each row of a range image; the first row is the highest beam.

        Raises:
            ValueError: the calibration has another number of beams.
        """
        if self.inclinations is None:
            steps = (np.arange(height) + 0.5) / height
            return (self.lowest + steps * (self.highest - self.lowest))[::-1]
        if len(self.inclinations) != height:
            raise ValueError(
                f"a range image must have a row for each of {len(self.inclinations)} beams, has {height}"
            )
        return self.inclinations[::-1]

    def azimuths(self, width: int) -> NDArray[np.float64]:
        """(width,) direction of each column in the scanner's frame, radians.

        Columns run clockwise, and the middle one looks along x of the vehicle, however the scanner is turned.
        """
        yaw = np.arctan2(self.to_vehicle[1, 0], self.to_vehicle[0, 0])
        return (2 * (width - np.arange(width) - 0.5) / width - 1) * np.pi - yaw


@dataclass(frozen=True)
class PixelPoses:
    """Where the vehicle was when each pixel of the roof scanner was measured."""

    values: NDArray[np.floating]
    """(H, W, 6) roll, pitch, yaw (radians) and x, y, z (metres), vehicle to world."""
    vehicle_to_world: NDArray[np.float64]
    """(4, 4) pose of the vehicle that the points are brought into."""

    def correct(
        self, points: NDArray[np.float64], rows: NDArray[np.int64], columns: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """(N, 3) points of some pixels in the vehicle of the frame, given in that of their own moment.

        In float64: positions in the world have five digits before the point.
        """
        pose = self.values[rows, columns].astype(np.float64)
        turn = rotation(*pose[:, :3].T)
        world = np.einsum("nij,nj->ni", turn, points) + pose[:, 3:]
        back = self.vehicle_to_world
        return (world - back[:3, 3]) @ back[:3, :3]


def rotation(
    roll: NDArray[np.float64], pitch: NDArray[np.float64], yaw: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(N, 3, 3) Rz(yaw) Ry(pitch) Rx(roll) for angles in radians."""
    (cr, cp, cy), (sr, sp, sy) = np.cos([roll, pitch, yaw]), np.sin([roll, pitch, yaw])
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def measured_pixels(
    image: NDArray[np.floating],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and columns of the pixels of a range image that have a return, row by row."""
    rows, columns = np.nonzero(image[..., 0] > 0)
    return rows, columns


def points_of(
    image: NDArray[np.floating],
    calibration: LaserCalibration,
    moving: PixelPoses | None,
) -> NDArray[np.float64]:
    """(N, 3) points of the ``measured_pixels`` of a range image, in the vehicle's frame, metres.

    Args:
        image: (H, W, C), the range in metres first; 0 or less where nothing came back.
        calibration: of the scanner.
        moving: corrects the motion of the vehicle during the sweep; None: it is not corrected.

    Raises:
        ValueError: the image does not fit the calibration or the poses.
    """
    height, width = image.shape[:2]
    if moving is not None and moving.values.shape[:2] != (height, width):
        raise ValueError(
            f"a range image must have a pose for each pixel, has {(height, width)} pixels and poses of "
            f"{moving.values.shape[:2]}"
        )
    rows, columns = measured_pixels(image)
    distance = image[rows, columns, 0].astype(np.float64)
    if not np.isfinite(distance).all():
        raise ValueError("a range image must hold finite ranges")
    inclination = calibration.beams(height)[rows]
    azimuth = calibration.azimuths(width)[columns]
    level = distance * np.cos(inclination)
    local = np.stack(
        [level * np.cos(azimuth), level * np.sin(azimuth), distance * np.sin(inclination)], axis=1
    )
    mounted = calibration.to_vehicle
    points = local @ mounted[:3, :3].T + mounted[:3, 3]
    return points if moving is None else moving.correct(points, rows, columns)
