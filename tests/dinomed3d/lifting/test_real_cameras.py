"""Real sensors: the shares of points that cameras see, and whether images and points agree."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from dinomed3d.lifting import (
    Camera,
    Cameras,
    FeatureMap,
    Last,
    Mean,
    lift,
    sample_nearest,
    z_buffer,
)
from pointseg.files import read_cloud


@pytest.fixture(scope="module")
def points(shared):
    return shared / "data" / "points"


def cloud(path, columns):
    return torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, columns)[:, :3].copy())


# --- KITTI: one camera, boxes in 3D and in the image


def kitti(points, frame):
    """The scan, its camera, and points in the rectified frame that boxes are given in."""
    folder = points / "kitti_object" / "training"
    lines = (folder / "calib" / f"{frame}.txt").read_text().splitlines()
    calibration = {
        name: np.array(values.split(), float)
        for name, _, values in (line.partition(":") for line in lines if line)
    }
    lens = calibration["P2"].reshape(3, 4)
    rectified, velodyne = np.eye(4), np.eye(4)
    rectified[:3, :3] = calibration["R0_rect"].reshape(3, 3)
    velodyne[:3] = calibration["Tr_velo_to_cam"].reshape(3, 4)
    pose = rectified @ velodyne
    shift = np.eye(4)
    shift[:3, 3] = np.linalg.solve(lens[:, :3], lens[:, 3])
    with Image.open(folder / "image_2" / f"{frame}.png") as image:
        size = image.size[::-1]
    scan = cloud(folder / "velodyne" / f"{frame}.bin", 4)
    camera = Camera(intrinsics=lens[:, :3], size=size, world_to_camera=shift @ pose)
    return scan, camera, scan.double().numpy() @ pose[:3, :3].T + pose[:3, 3]


@pytest.mark.parametrize(("frame", "share"), [("000000", 0.176), ("000001", 0.155)])
def test_kitti_share_of_points_in_the_image(points, frame, share):
    scan, camera, _ = kitti(points, frame)
    visible = Cameras([camera]).project(0, scan)[1]
    assert visible.float().mean().item() == pytest.approx(share, abs=1e-3)


def test_kitti_points_in_a_box_fall_into_its_box_in_the_image(points):
    inside, found = 0, 0
    for frame in ("000000", "000001"):
        scan, camera, rectified = kitti(points, frame)
        uv = camera.project(scan)[0].numpy()
        labels = points / "kitti_object" / "training" / "label_2" / f"{frame}.txt"
        for line in labels.read_text().splitlines():
            name, *numbers = line.split()
            if name == "DontCare":
                continue
            left, top, right, bottom, height, width, length, x, y, z, turn = map(
                float, numbers[3:14]
            )
            away = rectified - [x, y, z]
            along = away[:, 0] * np.cos(turn) - away[:, 2] * np.sin(turn)
            across = away[:, 0] * np.sin(turn) + away[:, 2] * np.cos(turn)
            part = (abs(along) <= length / 2) & (abs(across) <= width / 2)
            part &= (away[:, 1] <= 0) & (away[:, 1] >= -height)
            u, v = uv[part].T
            inside += part.sum()
            found += ((u >= left) & (u <= right) & (v >= top) & (v <= bottom)).sum()
    assert inside > 400
    assert found / inside > 0.997


def test_kitti_scan_hides_little_from_a_camera_next_to_the_scanner(points):
    for frame in ("000000", "000001"):
        scan, camera, _ = kitti(points, frame)
        inside = Cameras([camera]).project(0, scan)[1]
        depth = z_buffer(camera, scan)
        visible = Cameras([camera], depths=[depth]).project(0, scan)[1]
        assert 0.7 < visible[inside].float().mean() < 0.99
        assert not visible[~inside].any()


# --- nuScenes: six cameras


@pytest.fixture(scope="module")
def keyframe(points):
    folder = points / "nuscenes_sample"
    (file,) = folder.glob("*.pkl")
    with open(file, "rb") as stream:
        frame = pickle.load(stream)["data_list"][0]
    cameras = {
        name: Camera(
            intrinsics=image["cam2img"], size=(900, 1600), world_to_camera=image["lidar2cam"]
        )
        for name, image in frame["images"].items()
    }
    return cloud(folder / frame["lidar_points"]["lidar_path"], 5), cameras


def test_nuscenes_shares_of_points_seen_by_each_camera(keyframe):
    scan, cameras = keyframe
    views = Cameras(list(cameras.values()))
    visible = torch.stack([views.project(view, scan)[1] for view in range(6)])
    assert visible.any(0).float().mean().item() == pytest.approx(0.583, abs=1e-3)
    wanted = dict(FRONT=8.8, FRONT_RIGHT=8.9, FRONT_LEFT=10.7, BACK=13.9, BACK_LEFT=11.8)
    wanted = {f"CAM_{name}": share for name, share in (wanted | {"BACK_RIGHT": 9.7}).items()}
    shares = dict(zip(cameras, 100 * visible.float().mean(1), strict=True))
    assert {name: round(float(share), 1) for name, share in shares.items()} == wanted


def test_nuscenes_features_say_which_camera_they_are_of(keyframe):
    scan, cameras = keyframe
    maps = FeatureMap(torch.eye(6)[:, :, None, None].expand(6, 6, 57, 100), 16, (900, 1600))
    views = Cameras(list(cameras.values()))
    visible = torch.stack([views.project(view, scan)[1] for view in range(6)], dim=1).float()
    mean, seen = lift(maps, views, scan, fuse=Mean())
    torch.testing.assert_close(mean, visible / visible.sum(1, keepdim=True).clamp(min=1))
    last, _ = lift(maps, views, scan, fuse=Last())
    assert (last.sum(1) == seen).all() and (last.argmax(1)[seen] >= mean.argmax(1)[seen]).all()
    assert (last[~seen] == 0).all()


# --- RELLIS: a transform that is written the other way round


def test_rellis_points_carry_their_pixels_labels_if_the_transform_is_inverted(points):
    folder = points / "rellis3d"
    given = yaml.safe_load((folder / "transforms.yaml").read_text())[
        "os1_cloud_node-pylon_camera_node"
    ]
    transform = np.eye(4)
    transform[:3, :3] = Rotation.from_quat([given["q"][k] for k in "xyzw"]).as_matrix()
    transform[:3, 3] = [given["t"][k] for k in "xyz"]
    fx, fy, cx, cy = map(float, (folder / "camera_info.txt").read_text().split())
    scan = cloud(folder / "000104.bin", 4)
    labels = torch.from_numpy(np.fromfile(folder / "000104.label", np.uint32).astype(np.int64))
    returned = scan.any(1)
    scan, labels = scan[returned], labels[returned]
    with Image.open(next(folder.glob("*.png"))) as image:
        pixels = torch.from_numpy(np.array(image)).float()
    maps = FeatureMap(pixels[None, None], 1, tuple(pixels.shape))

    def agreement(pose):
        lens = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]
        camera = Camera(intrinsics=lens, size=maps.image_size, world_to_camera=pose)
        found, seen = lift(maps, Cameras([camera]), scan, fuse=Last(), sample=sample_nearest)
        assert seen.sum() > 3000
        return (found[seen, 0] == labels[seen]).float().mean().item()

    assert agreement(np.linalg.inv(transform)) == pytest.approx(0.77, abs=0.005)
    assert agreement(transform) == pytest.approx(0.0003, abs=1e-4)


# --- RGB-D: depth to points and back


@pytest.fixture(scope="module")
def frames(points):
    """Depths (480, 640) of five frames in metres, their cameras, and these without poses."""
    folder = points / "open3d_rgbd"
    lens = np.array(json.loads((folder / "camera_primesense.json").read_text())["intrinsic_matrix"])
    lens = lens.reshape(3, 3).T.copy()
    lens[:2, 2] += 0.5  # there, the centre of the first pixel is 0
    rows = [line.split() for line in (folder / "trajectory.log").read_text().splitlines() if line]
    poses = np.array([row for row in rows if len(row) == 4], float).reshape(-1, 4, 4)
    depths = []
    for number in range(5):
        with Image.open(folder / "depth" / f"{number:05d}.png") as image:
            depths.append(torch.from_numpy(np.array(image).astype(np.float32)) / 1000)
    posed, unposed = (
        [Camera(intrinsics=lens, size=(480, 640), world_to_camera=matrix) for matrix in matrices]
        for matrices in (np.linalg.inv(poses), [np.eye(4)] * 5)
    )
    return depths, posed, unposed


def measured(camera, depth):
    found = camera.unproject(depth).view(-1, 3)
    return found[found.isfinite().all(1)]


def test_posed_frames_agree(frames):
    depths, *both = frames
    near, far = (
        np.median(
            cKDTree(measured(cameras[0], depths[0])[::12]).query(
                measured(cameras[4], depths[4])[::12]
            )[0]
        )
        for cameras in both
    )
    assert near < 0.010 and far > 0.022


def test_points_of_one_frame_lie_on_the_surface_that_another_measured(frames):
    depths, *both = frames
    for cameras, wanted in zip(both, (0.95, 0.56), strict=True):
        views = Cameras(cameras[:1], depths=depths[:1], depth_tolerance=0.05)
        visible = views.project(0, measured(cameras[4], depths[4]))[1]
        assert visible.float().mean().item() == pytest.approx(wanted, abs=0.01)


def test_a_clouds_own_depth_is_that_of_the_sensor(frames):
    """A cloud of five frames: what the first sees of it by its depth map, and by the cloud alone."""
    depths, cameras, _ = frames
    whole = torch.cat([measured(c, d) for c, d in zip(cameras, depths, strict=True)])
    random = torch.Generator().manual_seed(0)
    cloud = whole[torch.randperm(len(whole), generator=random)[: len(whole) // 5]]
    cloud = cloud[Cameras(cameras[:1]).project(0, cloud)[1]]
    own = Cameras(cameras[:1], depths=[z_buffer(cameras[0], cloud)])
    uv, visible, distance = own.project(0, cloud)
    u, v = uv.long().T
    sensor = depths[0][v, u]
    surface, behind = (distance - sensor).abs() < 0.05, (distance > sensor + 0.3) & (sensor > 0)
    # Frames differ little, so that what is hidden is narrow: strips along outlines.
    assert surface.sum() > 200_000 and behind.sum() > 1000
    assert visible[surface].float().mean() > 0.995
    assert visible[behind].float().mean() < 0.2


def test_an_organised_cloud_is_exactly_pinhole(points):
    files = sorted((points / "tabletop_rgbd").rglob("*.pcd"))[::8]
    lens = [[525, 0, 320], [0, 525, 240], [0, 0, 1]]  # c = (319.5, 239.5) from the pixels' centres
    camera = Camera(intrinsics=lens, size=(480, 640), world_to_camera=np.eye(4))
    for file in files:
        grid = torch.from_numpy(read_cloud(file).coord).view(480, 640, 3)
        known = grid.isfinite().all(-1)
        row, column = torch.nonzero(known).T
        uv, depth = camera.project(grid[known])
        assert (uv - torch.stack([column, row], dim=1) - 0.5).abs().max() < 0.01
        back = camera.unproject(torch.where(known, grid[..., 2], 0))
        torch.testing.assert_close(back[known].float(), grid[known], atol=1e-5, rtol=1e-5)
        assert back[~known].isnan().all()
        seen = Cameras([camera], depths=[grid[..., 2]], depth_tolerance=1e-4).project(
            0, grid.view(-1, 3)
        )[1]
        assert torch.equal(seen.view(480, 640), known)
