"""The images of a person's own clouds: manifests, COLMAP, organised clouds, units and axes; real RGB-D frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from pointseg.datasets import DatasetError, open_dataset
from pointseg.datasets.folder.cameras import CameraRule, parse_cameras
from pointseg.files import write_cloud
from pointseg.images.config import ImageConfig
from pointseg.images.projection import compute_visibility
from pointseg.images.readers.frame import Frame, ImagesError, make_camera
from pointseg.images.readers.image_files import DepthFile, ImageFile
from pointseg.images.readers.manifest import read_manifest, write_manifest
from pointseg.images.visibility import VisibilityConfig
from pointseg.loading.scene_images import ImageLoader, SceneImageLoader
from pointseg.scene import Scene
from tests import ROOT
from tests.pointseg.images.readers.test_organised import surface
from tests.pointseg.images.readers.test_organised import write as write_pcd

EXAMPLES = ROOT / "examples"
K = np.array([[30.0, 0, 30], [0, 30, 20], [0, 0, 1]])
# Nine points 2 m before the origin; in their images they lie 15 pixels apart.
WALL = np.array([[x, y, 2] for y in (-1.0, 0, 1) for x in (-1.0, 0, 1)])
EXPECTED = [[u, v] for v in (5, 20, 35) for u in (15, 30, 45)]


def dataset(root: Path, points: np.ndarray, cameras: Any, **changes: Any) -> Any:
    """One cloud, train/a.ply, and the description."""
    origin = np.round(points.mean(0), -2) if np.abs(points).max() > 1e4 else np.zeros(3)
    scene = Scene(
        coord=(points - origin).astype(np.float32),
        fields={"segment": np.zeros(len(points), np.int32)},
        origin=origin,
    )
    write_cloud(root / "train" / "a.ply", scene)
    found = {
        "classes": ["wall"],
        "features": [],
        "voxel_m": 0.1,
        "cameras": cameras,
        "check_scale": False,
        **changes,
    }
    (root / "dataset.yaml").write_text(yaml.safe_dump(found))
    return open_dataset("folder", root)


def manifest(path: Path, pose: np.ndarray, **changes: Any) -> None:
    camera = make_camera("x", intrinsics=K, size=(40, 60), world_to_camera=pose)
    frames = [Frame(name="v", camera=camera, image=ImageFile(path.parent / "v.png"), **changes)]
    write_manifest(path, frames)


def positions(found: Any) -> list[list[float]]:
    scene = compute_visibility(
        found.load("train", "a"), found.frames("train", "a"), VisibilityConfig(), (40, 60)
    )
    assert scene["image_mask"].all()
    return scene["image_coord"][:, 0].astype(float).round(3).tolist()


@pytest.mark.parametrize("unit", ["metre", "centimetre", "foot"])
@pytest.mark.parametrize("up", ["z", "y", "-y"])
def test_poses_are_in_the_unit_and_axes_of_the_cloud(tmp_path: Path, unit: str, up: str) -> None:
    shift = np.array([7.0, -5, 3])
    pose = np.eye(4)
    pose[:3, 3] = -shift
    manifest(tmp_path / "cams" / "a.json", pose)
    found = dataset(tmp_path, WALL + shift, "cams/{scene}.json", unit=unit, up=up)
    assert positions(found) == EXPECTED


def test_georeferenced_clouds_meet_their_cameras(tmp_path: Path) -> None:
    shift = np.array([512_345.25, 5_403_210.5, 412.0])
    pose = np.eye(4)
    pose[:3, 3] = -shift
    manifest(tmp_path / "train" / "cameras.json", pose)
    found = dataset(tmp_path, WALL + shift, "{folder}/cameras.json")
    assert found.load("train", "a").origin.any()
    assert np.array(positions(found)) == pytest.approx(np.array(EXPECTED), abs=0.01)


def test_depths_stay_metres_whatever_the_unit(tmp_path: Path) -> None:
    from tests.pointseg.datasets.official_images import write_depth

    write_depth(tmp_path / "a" / "d.png", np.full((40, 60), 20))
    manifest(tmp_path / "a" / "c.json", np.eye(4), depth=DepthFile(tmp_path / "a" / "d.png"))
    found = dataset(tmp_path, WALL, "{scene}/c.json", unit="centimetre")
    assert positions(found) == EXPECTED


def test_colmap_models(tmp_path: Path) -> None:
    model = tmp_path / "a" / "sparse"
    model.mkdir(parents=True)
    (model / "cameras.txt").write_text("1 PINHOLE 60 40 30 30 30 20\n")
    (model / "images.txt").write_text("1 1 0 0 0 0 0 0 1 v.png\n\n")
    rule = {"colmap": "{scene}/sparse", "images": "{scene}/photos"}
    found = dataset(tmp_path, WALL, rule)
    assert positions(found) == EXPECTED
    (frame,) = found.frames("train", "a")
    assert frame.image == ImageFile(tmp_path / "a" / "photos" / "v.png")


def test_organised_clouds_are_their_own_images(tmp_path: Path) -> None:
    (tmp_path / "test").mkdir()
    write_pcd(tmp_path / "test" / "b.pcd", surface())
    found = dataset(tmp_path, WALL, "organised", up="-y")
    (frame,) = found.frames("test", "b")
    scene = compute_visibility(
        found.load("test", "b"), [frame], VisibilityConfig(depth_tolerance_m=1e-3), (24, 32)
    )
    assert scene["image_mask"].all()
    with pytest.raises(DatasetError, match="a.ply: 'cameras: organised'"):
        found.frames("train", "a")


def test_scenes_may_lack_images_but_not_all_of_them(tmp_path: Path) -> None:
    write_cloud(tmp_path / "train" / "b.ply", Scene(coord=WALL.astype(np.float32)))
    found = dataset(tmp_path, WALL, "cams/{split}_{scene}.json")
    with pytest.raises(DatasetError, match="train_a.json: is missing"):
        found.frames("train", "a")
    manifest(tmp_path / "cams" / "train_a.json", np.eye(4))
    assert len(found.frames("train", "a")) == 1 and found.frames("train", "b") == ()
    with pytest.raises(DatasetError, match="has no scene 'c'"):
        found.frames("train", "c")
    (tmp_path / "cams" / "train_a.json").write_text("{}")
    with pytest.raises(ImagesError, match="'format' must be"):
        found.frames("train", "a")


def test_a_description_without_cameras_is_to_be_completed(tmp_path: Path) -> None:
    found = dataset(tmp_path, WALL, None)
    with pytest.raises(DatasetError, match=r"dataset.yaml: has no 'cameras'"):
        found.frames("train", "a")
    with pytest.raises(DatasetError, match="has no scene 'c'"):
        found.frames("train", "c")
    images = SceneImageLoader(found, ImageLoader(ImageConfig()))
    with pytest.raises(DatasetError, match="organised, or {colmap: FOLDER, images: FOLDER}"):
        images.load("train", "a", found.load("train", "a"))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "'cameras' must be the path of each scene's cameras.json"),
        ("", "'cameras' must be the path"),
        ({"colmap": "a"}, "'cameras' must be the path"),
        ({"colmap": "a", "images": 3}, "'cameras' must be the path"),
        ("{name}/c.json", "'cameras': .*scene, split, folder, got name"),
        ("{scene/c.json", "'{scene/c.json': "),
    ],
)
def test_descriptions_that_do_not_fit(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(DatasetError, match=f"dataset.yaml: .*{message}"):
        dataset(tmp_path, WALL, value)


def test_the_least_rule() -> None:
    assert parse_cameras("organised") == CameraRule("organised")


def test_real_organised_scenes(shared: Path) -> None:
    root = shared / "data" / "points" / "tabletop_rgbd"
    found = open_dataset("folder", root, config=EXAMPLES / "tabletop.yaml")
    scene, (frame,) = found.load("val", "test31"), found.frames("val", "test31")  # type: ignore[attr-defined]
    scene = compute_visibility(scene, [frame], VisibilityConfig(), (480, 640))
    assert scene["image_mask"].all()
    u, v = scene["image_coord"][:, 0].T.astype(int)
    assert (frame.read_image()[v, u] == scene["color"]).all()


def test_real_posed_frames_agree_in_space(tmp_path: Path, shared: Path) -> None:
    """Frame 4, brought into the world by its pose, is seen by frame 0 where its depth map says."""
    root = shared / "data" / "points" / "open3d_rgbd"
    lines = (root / "trajectory.log").read_text().splitlines()
    poses = [np.loadtxt(lines[5 * n + 1 : 5 * n + 5]) for n in range(5)]
    frames = [
        Frame(
            name=str(number),
            camera=make_camera(
                f"trajectory.log: {number}",
                intrinsics=[[525.0, 0, 320], [0, 525, 240], [0, 0, 1]],
                size=(480, 640),
                camera_to_world=poses[number],
            ),
            image=ImageFile(root / "color" / f"{number:05d}.jpg"),
            depth=DepthFile(root / "depth" / f"{number:05d}.png", 1000.0),
        )
        for number in (0, 4)
    ]
    write_manifest(tmp_path / "cameras.json", frames)
    first, last = read_manifest(tmp_path / "cameras.json")
    depth = last.read_depth()
    assert depth is not None
    rule = VisibilityConfig(depth_tolerance_m=0.02)

    def share(placed: Frame, seen_by: Frame) -> float:
        points = placed.camera.unproject(torch.from_numpy(depth)).reshape(-1, 3).numpy()
        cloud = Scene(coord=points[np.isfinite(points).all(1)].astype(np.float32))
        return float(compute_visibility(cloud, [seen_by], rule, (480, 640))["image_mask"].mean())

    assert share(last, last) > 0.999
    assert share(last, first) > 0.88  # the cameras are not at one place: a tenth is out of view
    assert share(first, first) < 0.4  # taken for unmoved
