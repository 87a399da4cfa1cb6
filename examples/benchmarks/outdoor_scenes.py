"""Frames of LiDAR data sets with cameras: points, posed images and a class for every point.

KITTI's object frames and nuScenes' keyframe have boxes, whose points get the box's class; RELLIS-3D has a label for
each point. Cameras are in the coordinates of the scan.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial.transform import Rotation

from pointseg.images.readers.frame import Frame, make_camera
from pointseg.images.readers.image_files import ImageFile

RELLIS = {
    3: "grass", 4: "tree", 17: "person", 18: "fence", 19: "bush", 23: "concrete", 31: "puddle", 33: "mud",
}  # fmt: skip
"""Names of the labels that occur; 0 is void."""


MERGED = {
    "car": 1, "truck": 1, "trailer": 1, "bus": 1, "construction_vehicle": 1,
    "pedestrian": 2, "bicycle": 3, "motorcycle": 3, "traffic_cone": 4, "barrier": 4,
}  # fmt: skip
"""Classes of nuScenes' boxes as fewer ones, since one keyframe has few of each."""


@dataclass(frozen=True)
class Outdoor:
    """One scan with its images."""

    name: str
    """Of the data set and frame."""
    file: Path
    """The scan."""
    points: NDArray[np.float32]
    """(N, 4) x, y, z, intensity."""
    segment: NDArray[np.int64]
    """(N,) classes, -1 where there is none."""
    classes: tuple[str, ...]
    """Their names."""
    frames: tuple[Frame, ...]
    """Posed images; the first looks ahead."""

    @property
    def is_left(self) -> NDArray[np.bool_]:
        """(N,) whether a point is to the left of the first camera's axis: one half of the azimuth."""
        ahead = self.frames[0].camera.world_to_camera[2, :2].numpy()
        return np.asarray(ahead[0] * self.points[:, 1] - ahead[1] * self.points[:, 0] > 0)


def kitti(root: Path) -> list[Outdoor]:
    """Two frames of the object benchmark; classes background and object."""
    return [_kitti(root / "kitti_object" / "training", name) for name in ("000000", "000001")]


def _kitti(folder: Path, name: str) -> Outdoor:
    lines = (folder / "calib" / f"{name}.txt").read_text().splitlines()
    found = {
        key: np.array(values.split(), float)
        for key, _, values in (line.partition(":") for line in lines if line)
    }
    lens, pose, rectified = found["P2"].reshape(3, 4), np.eye(4), np.eye(4)
    pose[:3] = found["Tr_velo_to_cam"].reshape(3, 4)
    rectified[:3, :3] = found["R0_rect"].reshape(3, 3)
    pose = rectified @ pose
    shift = np.eye(4)
    shift[:3, 3] = np.linalg.solve(lens[:, :3], lens[:, 3])
    intrinsics = lens[:, :3].copy()
    intrinsics[:2, 2] += 0.5  # KITTI's first pixel has its centre at 0
    file = folder / "velodyne" / f"{name}.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 4)
    in_camera = points[:, :3] @ pose[:3, :3].T + pose[:3, 3]
    segment = np.zeros(len(points), np.int64)
    for line in (folder / "label_2" / f"{name}.txt").read_text().splitlines():
        kind, *numbers = line.split()
        if kind == "DontCare":
            continue
        height, width, length, x, y, z, turn = map(float, numbers[7:14])
        away = in_camera - [x, y - height / 2, z]
        # In camera axes y points down; a turn about it has the opposite sense in x and z.
        plane = np.stack([away[:, 0], away[:, 2]], 1)
        inside = _in_turned(plane, length, width, -turn) & (abs(away[:, 1]) <= height / 2)
        segment[inside] = 1
    frame = _frame("image_2", folder / "image_2" / f"{name}.png", intrinsics, shift @ pose)
    return Outdoor(f"kitti {name}", file, points, segment, ("background", "object"), (frame,))


def nuscenes(root: Path) -> list[Outdoor]:
    """One keyframe with six cameras; classes background and those of the boxes."""
    folder = root / "nuscenes_sample"
    (table,) = folder.glob("*.pkl")
    content = _Plain(io.BytesIO(table.read_bytes())).load()
    found, names = content["data_list"][0], content["metainfo"]["categories"]
    file = folder / found["lidar_points"]["lidar_path"]
    points = np.fromfile(file, np.float32).reshape(-1, 5)[:, :4].copy()
    segment = np.zeros(len(points), np.int64)
    merged = {number: MERGED[name] for name, number in names.items()}
    for box in found["instances"]:
        x, y, z, length, width, height, turn = box["bbox_3d"]
        away = points[:, :3] - [x, y, z]
        inside = _in_turned(away[:, :2], length, width, turn) & (abs(away[:, 2]) <= height / 2)
        segment[inside] = merged.get(box["bbox_label_3d"], -1)
    order = sorted(found["images"], key=lambda name: name != "CAM_FRONT")
    frames = tuple(
        _frame(name, folder / image["img_path"], image["cam2img"], image["lidar2cam"])
        for name, image in ((name, found["images"][name]) for name in order)
    )
    classes = ("background", "vehicle", "pedestrian", "cycle", "cone or barrier")
    return [Outdoor("nuscenes", file, points, segment, classes, frames)]


def rellis(root: Path) -> list[Outdoor]:
    """One frame of RELLIS-3D, whose stated transform is inverted; no-returns have no class."""
    folder = root / "rellis3d"
    ((_, transform),) = yaml.safe_load((folder / "transforms.yaml").read_text()).items()
    stated = np.eye(4)
    stated[:3, :3] = Rotation.from_quat([transform["q"][axis] for axis in "xyzw"]).as_matrix()
    stated[:3, 3] = [transform["t"][axis] for axis in "xyz"]
    fx, fy, cx, cy = map(float, (folder / "camera_info.txt").read_text().split())
    file = folder / "000104.bin"
    points = np.fromfile(file, np.float32).reshape(-1, 4)
    labels = np.fromfile(folder / "000104.label", np.uint32)
    segment = np.full(len(points), -1, np.int64)
    for number, label in enumerate(RELLIS):
        segment[labels == label] = number
    segment[~points[:, :3].any(1)] = -1
    (image,) = folder.glob("*.jpg")
    intrinsics = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
    frame = _frame("pylon", image, intrinsics, np.linalg.inv(stated))
    return [Outdoor("rellis3d", file, points, segment, tuple(RELLIS.values()), (frame,))]


def _frame(name: str, image: Path, intrinsics: Any, pose: Any) -> Frame:
    with Image.open(image) as held:
        width, height = held.size
    camera = make_camera(
        name, intrinsics=intrinsics, size=(height, width), world_to_camera=np.asarray(pose)
    )
    return Frame(name=name, camera=camera, image=ImageFile(image))


def _in_turned(
    plane: NDArray[np.floating], length: float, width: float, turn: float
) -> NDArray[np.bool_]:
    """(N,) whether (N, 2) positions lie in a rectangle that is turned from the first axis to the second."""
    along = plane @ [np.cos(turn), np.sin(turn)]
    across = plane @ [-np.sin(turn), np.cos(turn)]
    return np.asarray((abs(along) <= length / 2) & (abs(across) <= width / 2))


_BYTES = ("_codecs", "encode")
"""How pickles of Python 2's form write bytes."""


class _Plain(pickle.Unpickler):
    """Reads numbers, texts, lists and numpy's numbers; anything else that a pickle asks for is refused."""

    def find_class(self, module: str, name: str) -> Any:
        numbers = ("scalar", "dtype", "_reconstruct", "ndarray")
        if (module.startswith("numpy") and name in numbers) or (module, name) == _BYTES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"asks for {module}.{name}")
