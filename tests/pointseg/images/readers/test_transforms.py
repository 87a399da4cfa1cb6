"""transforms.json: axes, intrinsics, lenses, names of files, the world before applied_transform, and every message."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dinomed3d.lifting import Lens
from pointseg.files import write_cloud
from pointseg.images.readers.camera_files import read_cameras
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.readers.image_files import DepthFile, ImageFile
from pointseg.scene import Scene

# 2 m above the origin, looking along +y with z up: OpenGL's camera axes are x, z and -y of the world.
POSE = [[1.0, 0, 0, 0], [0, 0, -1, 0], [0, 1, 0, 2], [0, 0, 0, 1]]
TOP = {"fl_x": 30.0, "fl_y": 31.0, "cx": 30.0, "cy": 20.0, "w": 60, "h": 40.0}
AHEAD = torch.tensor([[1.0, 5, 3]], dtype=torch.float64)
"""1 m to the right, 5 m ahead, 1 m above the camera: u = 30 + 30 / 5, v = 20 - 31 / 5."""


def write(root: Path, *frames: dict[str, Any], **top: Any) -> Path:
    found = {
        **TOP,
        **top,
        "frames": list(frames) or [{"file_path": "a.png", "transform_matrix": POSE}],
    }
    path = root / "transforms.json"
    text = json.dumps({key: value for key, value in found.items() if value is not None})
    path.write_text(text, encoding="utf-8")
    return path


def one(root: Path, own: dict[str, Any] | None = None, **top: Any) -> Frame:
    entry = {"file_path": "a.png", "transform_matrix": POSE, **(own or {})}
    (frame,) = read_cameras(write(root, entry, **top))
    return frame


def shown(frame: Frame, point: torch.Tensor = AHEAD) -> Any:
    return pytest.approx(frame.camera.project(point)[0][0].tolist())


def test_a_file_by_hand(tmp_path: Path) -> None:
    frame = one(tmp_path)
    assert [36, 20 - 31 / 5] == shown(frame)
    assert frame.camera.size == (40, 60) and frame.camera.distortion is None
    assert frame.camera.centre.tolist() == [0, 0, 2]
    assert (frame.name, frame.image) == ("a.png", ImageFile(tmp_path / "a.png"))
    assert frame.depth is None
    (again,) = read_cameras(tmp_path)  # the folder, as nerfstudio takes it
    assert again.name == "a.png"
    (elsewhere,) = read_cameras(tmp_path / "transforms.json", tmp_path / "images_2")
    assert elsewhere.image == ImageFile(tmp_path / "images_2" / "a.png")
    short = one(tmp_path, {"transform_matrix": POSE[:3]})
    assert torch.equal(short.camera.world_to_camera, frame.camera.world_to_camera)


def test_values_of_frames_and_angles(tmp_path: Path) -> None:
    none = dict.fromkeys(TOP)
    assert [36, 20 - 31 / 5] == shown(one(tmp_path, TOP, **none))  # all of them with the frame
    Image.new("RGB", (60, 40)).save(tmp_path / "r_0.png")
    blender = {"file_path": "./r_0", "transform_matrix": POSE}
    (frame,) = read_cameras(write(tmp_path, blender, **none, camera_angle_x=math.pi / 2))
    assert frame.camera.size == (40, 60) and frame.image == ImageFile(tmp_path / "r_0.png")
    assert [30 + 30 / 5, 20 - 30 / 5] == shown(frame)
    ngp = one(
        tmp_path,
        **{**TOP, "fl_x": None, "fl_y": None},
        x_fov=90.0,
        y_fov=2 * math.degrees(math.atan(2)),
    )
    assert [30 + 30 / 5, 20 - 10 / 5] == shown(ngp)
    assert [30 + 30 / 5, 20 - 31 / 5] == shown(one(tmp_path, camera_angle_x=0.1))  # fl_x counts


def test_lenses(tmp_path: Path) -> None:
    brown = one(tmp_path, k1=0.1, k2=0.2, p1=0.01, p2=0.02, camera_model="OPENCV").camera
    assert brown.distortion == Lens(radial=(0.1, 0.2), tangential=(0.01, 0.02))
    listed = one(tmp_path, {"distortion_params": [0.1, 0.2, 0.3, 0.4, 0.01, 0.02]}).camera
    assert listed.distortion == Lens(radial=(0.1, 0.2, 0.3, 0.4), tangential=(0.01, 0.02))
    for top in ({"camera_model": "OPENCV_FISHEYE"}, {"is_fisheye": True}):
        fisheye = one(tmp_path, {"k1": 0.1, "k2": 0}, **top).camera.distortion
        assert fisheye == Lens(fisheye=True, radial=(0.1,))


def test_names_of_images_and_depth_maps(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    for name in ("frame.0001.JPG", "b.png", "b.jpg"):
        (tmp_path / "images" / name).touch()
    own = {"file_path": "images\\frame.0001", "depth_file_path": "depth/1.png"}
    frame = one(tmp_path, own)
    assert frame.image == ImageFile(tmp_path / "images" / "frame.0001.JPG")
    assert frame.depth == DepthFile(tmp_path / "depth" / "1.png", 1000.0)
    ngp = one(tmp_path, {"depth_path": "1.png"}, integer_depth_scale=1 / 5000)
    assert ngp.depth == DepthFile(tmp_path / "1.png", 5000.0)
    with pytest.raises(
        ImagesError, match=r"frame 0 \(images/b\): .*b.png and .*b.jpg are both there"
    ):
        one(tmp_path, {"file_path": "images/b"})


def test_the_world_before_applied_transform(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A point p of the original world is saved as 2 (A p) with A p = (x, z + 1, -y)."""
    applied = [[1.0, 0, 0, 0], [0, 0, 1, 1], [0, -1, 0, 0]]
    saved = 2 * torch.tensor([[1.0, 3 + 1, -5]], dtype=torch.float64)
    top = {"applied_transform": applied, "applied_scale": 2.0, "ply_file_path": "sparse_pc.ply"}
    path = write(tmp_path, **top)
    (tmp_path / "sparse_pc.ply").touch()
    (own,) = read_cameras(path, cloud=tmp_path / "sparse_pc.ply")
    assert not caplog.text
    (before,) = read_cameras(path, cloud=tmp_path / "scan.ply")
    assert "applied_transform" in caplog.text
    assert shown(own, saved) == before.camera.project(AHEAD)[0][0].tolist()
    distances = own.camera.project(saved)[1], before.camera.project(AHEAD)[1]
    assert distances[0] == pytest.approx(2 * distances[1])
    # any other cloud: the world in which the images show it, and that is said
    # 2 (A p) of p = (0.5, -1.5, 1.5) is (1, 5, 3), which the camera sees
    for number, (name, at) in enumerate((("after", [1, 5, 3]), ("before", [0.5, -1.5, 1.5]))):
        spread = np.array(at) + np.random.default_rng(0).normal(0, 0.1, (50, 3))
        write_cloud(tmp_path / f"{name}.ply", Scene(coord=spread.astype(np.float32)))
        (found,) = read_cameras(path, cloud=tmp_path / f"{name}.ply")
        assert found.camera.centre.tolist() == (own, before)[number].camera.centre.tolist()
    assert "left as it is" in caplog.text and "100% of the points" in caplog.text
    identity = np.eye(4)[:3].tolist()
    assert [36, 20 - 31 / 5] == shown(one(tmp_path, applied_transform=identity, applied_scale=1))
    for wrong in ({"applied_transform": np.diag([1.0, 1, -1, 1]).tolist()}, {"applied_scale": 0}):
        with pytest.raises(ImagesError, match=f"'{next(iter(wrong))}' must be"):
            one(tmp_path, **wrong)


def test_cameras_of_other_kinds_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = {"file_path": "a.png", "transform_matrix": POSE, "mask_path": "m.png"}
    other = {**good, "file_path": "b.png", "camera_model": "EQUIRECTANGULAR"}
    assert [frame.name for frame in read_cameras(write(tmp_path, good, other))] == ["a.png"]
    assert "1 of 2 images are left out" in caplog.text and "mask_path" in caplog.text
    with pytest.raises(ImagesError, match="'camera_model' 'EQUIRECTANGULAR' is none of"):
        read_cameras(write(tmp_path, other))
    with pytest.raises(ImagesError, match="two frames have the 'file_path' 'a.png'"):
        read_cameras(write(tmp_path, good, good))


@pytest.mark.parametrize(
    ("own", "top", "message"),
    [
        ({"fl_x": 31}, {}, "'fl_x' is 31 here and 30.0 at the top"),
        ({"file_path": 3}, {}, "'file_path' must be text"),
        ({"transform_matrix": None}, {}, "'transform_matrix' must be 3 x 4 or 4 x 4"),
        ({"transform_matrix": [[1, 2], [3]]}, {}, "'transform_matrix' must be 3 x 4 or 4 x 4"),
        ({"transform_matrix": [[1e400] * 4] * 3}, {}, "'transform_matrix' must be 3 x 4 or 4 x 4"),
        ({"transform_matrix": np.diag([2.0, 2, 2, 1]).tolist()}, {}, "scaled by 2"),
        ({}, {"w": 10**400}, "'w' must be a number"),
        ({"transform_matrix": [[10**400] * 4] * 3}, {}, "'transform_matrix' must be 3 x 4 or 4 x 4"),
        ({}, {"w": 1.5}, "'w' must be a whole number"),
        ({}, {"w": 10**8}, "1 to 131072 pixels"),
        ({}, {"w": "60"}, "'w' must be a number"),
        ({}, {"w": None}, "a.png: this image is missing"),
        ({}, {"fl_x": None}, "lacks its focal length"),
        ({}, {"fl_x": -1}, "'fl_x' must be above 0"),
        ({}, {"fl_x": None, "camera_angle_x": 4}, "'camera_angle_x' must be an angle"),
        ({}, {"x_fov": 50}, "'x_fov' is of a focal length"),
        ({}, {"k1": math.nan}, "'k1' must be a number"),
        ({}, {"k1": 0.1, "distortion_params": [0] * 6}, "remove one of them"),
        ({}, {"distortion_params": [0] * 5}, "'distortion_params' must be six"),
        ({}, {"is_fisheye": "yes"}, "'is_fisheye' is 'yes'"),
        ({"depth_path": 1}, {}, "'depth_path' must be text"),
        ({"depth_path": "d.png"}, {"integer_depth_scale": 1000}, "must be metres per unit"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(
    tmp_path: Path, own: dict[str, Any], top: dict[str, Any], message: str
) -> None:
    with pytest.raises(ImagesError, match=message):
        one(tmp_path, own, **top)


def test_a_name_without_end_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ImagesError, match=r"transforms.json: frame 0 \(K+\): ") as caught:
        one(tmp_path, {"file_path": "K" * 5000, "transform_matrix": None})
    assert len(str(caught.value)) < 1000


def test_other_files_and_folders(tmp_path: Path) -> None:
    path = tmp_path / "transforms.json"
    for content, message in (
        ('{"frames": 3}', "'frames' must be a list"),
        ('{"frames": [3]}', "'frames' must be a list"),
        ('{"views": []}', "'format' must be"),
        ("[" * 100_000, "cannot be read as JSON"),
        ('{"frames": [', "cannot be read as JSON"),
    ):
        path.write_text(content, encoding="utf-8")
        with pytest.raises(ImagesError, match=message):
            read_cameras(path)
    with pytest.raises(ImagesError, match="is missing"):
        read_cameras(tmp_path / "none.json")
    (tmp_path / "colmap" / "sparse" / "0").mkdir(parents=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "colmap" / "sparse" / "0" / "cameras.bin").touch()
    with pytest.raises(ImagesError, match="the COLMAP model in it is .*0, give that"):
        read_cameras(tmp_path / "colmap")
    with pytest.raises(ImagesError, match="has neither COLMAP's"):
        read_cameras(tmp_path / "other")
    path.write_text('{"format": "pointseg-cameras-1", "views": []}')
    assert read_cameras(path) == ()
    with pytest.raises(ImagesError, match="names its images itself"):
        read_cameras(path, tmp_path)


def test_the_made_file_of_people(shared: Path) -> None:
    """The same cameras as transforms.json, COLMAP's binary model and a manifest with OpenGL's axes."""
    cases = shared / "cases/points/transforms_json"
    found = read_cameras(cases / "transforms.json")
    binary = {frame.name: frame.camera for frame in read_cameras(cases / "sparse_bin")}
    assert len(found) == len(binary) == 5
    for frame in found:
        other = binary[frame.name.removeprefix("images/")]
        assert torch.allclose(frame.camera.world_to_camera, other.world_to_camera, atol=1e-5)
        assert torch.equal(frame.camera.intrinsics, other.intrinsics)
