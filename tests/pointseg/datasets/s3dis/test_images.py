"""S3DIS's images: poses of 2D-3D-S, area 5b, aligned rooms, what is missing or damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pointseg.datasets import open_dataset
from pointseg.datasets.errors import DatasetError
from pointseg.datasets.s3dis.images import AREA_5B, RoomImages, find_rooms, prepare_images
from pointseg.datasets.s3dis.prepare import align_room, prepare
from pointseg.images.projection import compute_visibility
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.datasets.official import write_angles, write_room
from tests.pointseg.datasets.official_images import write_depth, write_picture

# 3 m above the corner (10, 20) of a room, looking down.
POSE = np.linalg.inv(np.array([[1, 0, 0, 10], [0, -1, 0, 20], [0, 0, -1, 3], [0, 0, 0, 1.0]]))
K = [[10.0, 0, 20], [0, 10, 20], [0, 0, 1]]
FLOOR = "10 20 0 1 2 3\n12 20 0 4 5 6\n10 23 0 7 8 9\n12 23 0 1 1 1\n30 60 0 0 0 0\n"


def write_image(
    root: Path,
    area: str,
    room: str,
    number: int = 0,
    pose: NDArray[Any] = POSE,
    depth: int = 3 * 512,
) -> Path:
    """A 40 x 40 image in the format of 2D-3D-S; the depth of its first row is missing."""
    stem = f"camera_0d600f92f8d14e288ddc590c32584a5a_{room}_frame_{number}_domain"
    data = root / area / "data"
    write_picture(data / "rgb" / f"{stem}_rgb.png", 40, 40)
    depths = np.full((40, 40), depth)
    depths[0] = 65535
    write_depth(data / "depth" / f"{stem}_depth.png", depths)
    (data / "pose").mkdir(exist_ok=True)
    found = {"camera_k_matrix": K, "camera_rt_matrix": pose[:3].tolist(), "room": room}
    path = data / "pose" / f"{stem}_pose.json"
    path.write_text(json.dumps(found))
    return path


def frames_of(root: Path, area: str, room: str) -> tuple[Frame, ...]:
    return open_dataset("s3dis", root).frames(area, room)  # type: ignore[attr-defined, no-any-return]


def seen(root: Path, area: str, room: str) -> tuple[list[list[float]], list[bool]]:
    scene = open_dataset("s3dis", root).load(area, room)
    found = compute_visibility(scene, frames_of(root, area, room), VisibilityConfig(), (80, 80))
    return found["image_coord"][:, 0].astype(float).round(3).tolist(), found["image_mask"][
        :, 0
    ].tolist()


# 20 + 10 x / 3 pixels of 40, twice enlarged; the last point is far outside.
EXPECTED = (
    [[40, 40], [53.333, 40], [40, 20], [53.333, 20], [0, 0]],
    [True, True, True, True, False],
)


def test_a_room_seen_by_its_images(tmp_path: Path) -> None:
    write_room(tmp_path / "raw", "Area_1", "office_1", {"floor_1": FLOOR})
    for number, room in enumerate(("office_1", "office_11", "xoffice_1")):
        write_image(tmp_path / "images", "area_1", room, number)
    away = POSE.copy()
    away[0, 3] += 1000
    write_image(tmp_path / "images", "area_1", "office_1", 7, pose=away)
    done = prepare(tmp_path / "raw", tmp_path / "out", normals="none", images=tmp_path / "images")
    assert "Area_1/office_1: 1 of 2 images do not show the room" in done.notes
    (frame,) = frames_of(tmp_path / "out", "Area_1", "office_1")
    assert frame.name == "0d600f92f8d14e288ddc590c32584a5a_office_1_frame_0"
    assert frame.read_image().shape == (40, 40, 3)
    depth = frame.read_depth()
    assert depth is not None and (depth[0] == 0).all() and (depth[1:] == 3).all()
    assert seen(tmp_path / "out", "Area_1", "office_1") == EXPECTED


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_cameras_turn_with_rooms_that_are_aligned(tmp_path: Path, angle: int) -> None:
    write_room(tmp_path / "raw", "Area_1", "office_1", {"floor_1": FLOOR})
    for area in ("Area_1",):
        write_angles(tmp_path / "raw", area, {"office_1": angle})
    write_image(tmp_path / "images", "area_1", "office_1")
    out = tmp_path / "out"
    prepare(tmp_path / "raw", out, normals="none", align=True, images=tmp_path / "images")
    rows = np.loadtxt(FLOOR.splitlines())[:, :3]
    coord = open_dataset("s3dis", out).load("Area_1", "office_1").coord
    assert coord == pytest.approx(align_room(rows, angle)) and not np.allclose(coord, rows)
    assert seen(out, "Area_1", "office_1") == EXPECTED


def test_area_5b_is_moved_to_area_5(tmp_path: Path) -> None:
    write_room(tmp_path / "raw", "Area_5", "office_1", {"floor_1": FLOOR})
    write_room(tmp_path / "raw", "Area_5", "office_2", {"floor_1": FLOOR})
    write_image(tmp_path / "images", "area_5b", "office_1", pose=POSE @ np.linalg.inv(AREA_5B))
    write_image(tmp_path / "images", "area_5a", "office_2")
    prepare(tmp_path / "raw", tmp_path / "out", normals="none", images=tmp_path / "images")
    for room in ("office_1", "office_2"):
        assert seen(tmp_path / "out", "Area_5", room) == EXPECTED


def test_images_can_be_added_later(tmp_path: Path) -> None:
    raw, images, out = tmp_path / "raw", tmp_path / "images", tmp_path / "out"
    write_room(raw, "Area_1", "office_1", {"floor_1": FLOOR})
    write_room(raw, "Area_1", "office_2", {"floor_1": FLOOR})
    prepare(raw, out, normals="none")
    with pytest.raises(DatasetError, match="prepared without images"):
        frames_of(out, "Area_1", "office_1")
    write_image(images, "area_1", "office_1")
    done = prepare(raw, out, normals="none", images=images)
    assert "1 rooms have no images: Area_1/office_2" in done.notes and done.kept == 1
    assert len(frames_of(out, "Area_1", "office_1")) == 1
    assert frames_of(out, "Area_1", "office_2") == ()
    assert prepare(raw, out, normals="none").kept == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be JSON with camera_k_matrix"),
        ('{"camera_k_matrix": [1, 2]}', "must be JSON with camera_k_matrix"),
        (None, "is missing; unpack 2D-3D-S again"),
        (json.dumps({"camera_k_matrix": K, "camera_rt_matrix": (2 * POSE[:3]).tolist()}), "scaled"),
    ],
)
def test_poses_that_do_not_fit_cost_their_room(
    tmp_path: Path, text: str | None, message: str
) -> None:
    write_room(tmp_path / "raw", "Area_1", "office_1", {"floor_1": FLOOR})
    path = write_image(tmp_path / "images", "area_1", "office_1")
    path.unlink()
    if text is not None:
        path.write_text(text)
    done = prepare(tmp_path / "raw", tmp_path / "out", normals="none", images=tmp_path / "images")
    (reason,) = done.failed.values()
    assert path.name in reason and message in reason


def test_damaged_positions_cost_their_room(tmp_path: Path) -> None:
    """Of a room that was prepared without images, whose arrays are read again for them."""
    write_room(tmp_path / "raw", "Area_1", "office_1", {"floor_1": FLOOR})
    write_image(tmp_path / "images", "area_1", "office_1")
    prepare(tmp_path / "raw", tmp_path / "out", normals="none")
    (files,) = find_rooms(tmp_path / "images").values()
    coord = tmp_path / "out" / "Area_1" / "office_1" / "coord.npy"
    content = bytearray(coord.read_bytes())
    content[-3] ^= 1  # only the checksum tells
    coord.write_bytes(content)
    with pytest.raises(DatasetError, match="coord.npy"):
        prepare_images(RoomImages(files, None), coord.parent)


def test_depths_in_millimetres_are_refused(tmp_path: Path) -> None:
    write_room(tmp_path / "raw", "Area_1", "office_1", {"floor_1": FLOOR})
    write_image(tmp_path / "images", "area_1", "office_1", depth=3)
    prepare(tmp_path / "raw", tmp_path / "out", normals="none", images=tmp_path / "images")
    with pytest.raises(ImagesError, match="depth.png: .*factor of 512"):
        seen(tmp_path / "out", "Area_1", "office_1")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "area_1" / "data" / "rgb" / "other.png", 4, 4)
    with pytest.raises(DatasetError, match="must be the folder of 2D-3D-S"):
        find_rooms(tmp_path)
