"""pointseg-check-cameras: what it finds in real frames and in wrong ones, how it ends."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

from pointseg.cli.check_cameras import main
from pointseg.files import write_cloud
from pointseg.scene import Scene
from tests.documented_keys import read_json
from tests.pointseg.evaluation.answers import CLASSES
from tests.pointseg.images.street import frame, inverted, photo, posed, street


def run(*arguments):
    return main([str(argument) for argument in arguments])


def view(image, intrinsics, pose, at="", **more):
    with Image.open(Path(at, image)) as held:
        width, height = held.size
    return {
        "image": str(image),
        "K": np.asarray(intrinsics).tolist(),
        "pose": np.asarray(pose).tolist(),
        "width": width,
        "height": height,
        **more,
    }


def manifest(path, views, **shared):
    content = {"format": "pointseg-cameras-1", "pose_direction": "world_to_camera", **shared}
    path.write_text(json.dumps({**content, "views": views}))
    return path


def written(folder, views, scene):
    """Frames and a cloud in files."""
    images = []
    for number, each in enumerate(views):
        image = folder / f"{number}.png"
        Image.fromarray(photo()).save(image)
        camera = each.camera
        images.append(view(image, camera.intrinsics, camera.world_to_camera))
    write_cloud(folder / "street.ply", scene)
    return folder / "street.ply", manifest(folder / "cameras.json", images)


def rellis(shared):
    """Cloud, image, K and the pose that the data set's transform means: it must be inverted."""
    folder = shared / "data/points/rellis3d"
    transforms = yaml.safe_load((folder / "transforms.yaml").read_text())
    ((_, found),) = transforms.items()
    turn, shift = found["q"], found["t"]
    stated = np.eye(4)
    stated[:3, :3] = Rotation.from_quat([turn[axis] for axis in "xyzw"]).as_matrix()
    stated[:3, 3] = [shift[axis] for axis in "xyz"]
    fx, fy, cx, cy = map(float, (folder / "camera_info.txt").read_text().split())
    (image,) = folder.glob("*.jpg")
    return folder / "000104.bin", image, [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], stated


@pytest.mark.slow
def test_rellis_right_and_wrong_are_distinguished_without_labels(shared, tmp_path, capsys):
    cloud, image, intrinsics, stated = rellis(shared)
    wrong = manifest(tmp_path / "wrong.json", [view(image, intrinsics, stated)])
    assert run(cloud, "--cameras", wrong, "-o", tmp_path / "wrong", "--strict") == 1
    printed = capsys.readouterr()
    assert "problem: the poses look inverted" in printed.out and "'pose_direction'" in printed.out
    assert "(rank correlation -0.89), 0.03 as stated" in printed.out
    assert "53364 of 131072 points are left out" in printed.err
    assert len(list((tmp_path / "wrong/views").iterdir())) == 2  # as stated, and as it seems
    right = manifest(tmp_path / "right.json", [view(image, intrinsics, np.linalg.inv(stated))])
    assert run(cloud, "--cameras", right, "-o", tmp_path / "right", "--strict") == 0
    printed = capsys.readouterr().out
    assert "poses: plausible as stated; what is lower in the images is nearer" in printed
    assert "problem" not in printed
    assert " 9.6% " in printed
    assert (tmp_path / "right/cloud.png").is_file()


@pytest.mark.slow
def test_nuscenes_shares(shared, tmp_path, capsys):
    folder = shared / "data/points/nuscenes_sample"
    (table,) = folder.glob("*.pkl")
    (found,) = pickle.loads(table.read_bytes())["data_list"]
    views = [
        view(folder / each["img_path"], each["cam2img"], each["lidar2cam"], name=name)
        for name, each in found["images"].items()
    ]
    cloud = folder / found["lidar_points"]["lidar_path"]
    path = manifest(tmp_path / "cameras.json", views)
    assert run(cloud, "--cameras", path, "-o", tmp_path, "--occlusion", "none") == 0
    printed = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1] for line in printed.splitlines() if "CAM_" in line}
    assert lines == {
        "CAM_FRONT": "8.8%",
        "CAM_FRONT_RIGHT": "8.9%",
        "CAM_FRONT_LEFT": "10.7%",
        "CAM_BACK": "13.9%",
        "CAM_BACK_LEFT": "11.8%",
        "CAM_BACK_RIGHT": "9.7%",
    }
    assert "58.3% of the points lie in at least one image, 58.3% are visible" in printed
    assert "plausible as stated" in printed


def test_an_organised_cloud_is_its_own_image(shared, tmp_path, capsys):
    cloud = shared / "data/points/tabletop_rgbd/test/test5.pcd"
    assert run(cloud, "-o", tmp_path, "--strict") == 0
    printed = capsys.readouterr()
    assert "100.0% of the points lie in at least one image, 100.0% are visible" in printed.out
    assert "not a calibration" in printed.err
    assert "110746 of 307200 points are left out: they have no position" in printed.err


def test_a_cloud_with_a_manifest(tmp_path, capsys):
    cloud, cameras = written(tmp_path, [frame(), frame()], street())
    assert run(cloud, "--cameras", cameras, "-o", tmp_path / "out") == 0
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()[1:3]] == ["0", "1"]
    assert "colours of points and pixels differ 0.00 times as much as by chance" in printed.out
    assert printed.err == "[1/2] 0\n[2/2] 1\n"
    assert run(cloud, "--cameras", cameras, "-o", tmp_path / "out", "--max-views", 1) == 0
    printed = capsys.readouterr()
    assert printed.err == "[1/1] 0\n"
    assert "\n2 of 2 images show the scene; 1 were checked (--max-views)\n" in printed.out


def test_a_cloud_in_millimetres(tmp_path, capsys):
    scene = street()
    seen = frame(depth=True)
    Image.fromarray(photo()).save(tmp_path / "0.png")
    depth = np.round(seen.read_depth() * 1000).astype(np.uint16)
    Image.fromarray(depth).save(tmp_path / "depth.png")
    pose = seen.camera.world_to_camera.numpy().copy()
    pose[:3, 3] *= 1000
    held = view("0.png", seen.camera.intrinsics, pose, at=tmp_path, depth="depth.png")
    cameras = manifest(tmp_path / "cameras.json", [held], depth_scale=1000)
    cloud = tmp_path / "street.ply"
    write_cloud(cloud, scene.moved(scene.coord * np.float32(1000)))
    words = (cloud, "--cameras", cameras, "-o", tmp_path / "out", "--strict")
    assert run(*words) == 1
    found = capsys.readouterr().out
    assert "the unit of points and poses is millimetre, not metre (--unit millimetre" in found
    assert run(*words, "--unit", "millimetre") == 0
    found = capsys.readouterr().out
    assert "100% of the points are at the distance" in found and "problem" not in found
    assert "100.0% are visible" in found


def test_points_may_be_off_as_far_as_in_training(tmp_path, monkeypatch, capsys):
    """Voxels of 4 mm are a fifth of ScanNet's, so the margin is a fifth of 0.2 m, unless it is stated."""
    held = []
    monkeypatch.setattr(
        "pointseg.images.camera_check.check.check_cameras",
        lambda spec: held.append(spec) or sys.exit(0),
    )
    Image.fromarray(photo()).save(tmp_path / "0.png")
    seen = frame().camera
    manifest(
        tmp_path / "street.json",
        [view("0.png", seen.intrinsics, seen.world_to_camera, at=tmp_path)],
    )
    write_cloud(tmp_path / "street.ply", street())
    description = {
        "name": "small", "features": ["color"], "voxel_m": 0.004, "check_scale": False, "splits": {"train": ["*.ply"]},
        "cameras": "{scene}.json",
    }  # fmt: skip
    (tmp_path / "dataset.yaml").write_text(yaml.safe_dump(description))
    for more in ((), ("--depth-tolerance", 0.3)):
        with pytest.raises(SystemExit):
            run("--dataset", "folder", "--root", tmp_path, "-o", tmp_path / "out", *more)
    with pytest.raises(SystemExit):
        run(tmp_path / "street.ply", "--cameras", tmp_path / "street.json", "-o", tmp_path / "out")
    assert [spec.visibility.depth_tolerance_m for spec in held] == pytest.approx([0.04, 0.3, 0.2])


def test_right_poses_of_which_few_show_the_scene_are_no_problem(tmp_path, capsys):
    away = frame().camera.world_to_camera.clone()
    away[0, 3] += 500
    views = [posed(frame(), away)] * 12
    views[7] = frame()
    cloud, cameras = written(tmp_path, views, street())
    words = (cloud, "--cameras", cameras, "-o", tmp_path / "out", "--strict")
    assert run(*words) == 0
    found = capsys.readouterr()
    assert "\n1 of 12 images show the scene\n" in found.out and found.err == "[1/1] 7\n"
    assert run(*words, "--max-views", 12) == 0
    printed = capsys.readouterr().out
    assert (
        "note: 0, 1, 2 and 8 more: no point lies inside the image" in printed
        and "problem" not in printed
    )


def test_findings_do_not_end_badly_unless_strict(tmp_path, capsys):
    cloud, cameras = written(tmp_path, [inverted(frame())], street())
    assert run(cloud, "--cameras", cameras, "-o", tmp_path / "out") == 0
    assert "problem: the poses look inverted" in capsys.readouterr().out
    more = ("-o", tmp_path / "out", "--strict", "--json")
    assert run(cloud, "--cameras", cameras, *more) == 1
    found = read_json(capsys.readouterr().out)
    assert found["problems"][0]["text"].startswith("the poses look inverted")
    assert found["poses"]["fit_better_as"] in found["views"][0]["others"]


def test_when_nothing_tells_that_is_said(tmp_path, capsys):
    scene = street(colored=False)
    scene = scene.select(scene.coord[:, 2] > 0.01)  # the wall alone
    cloud, cameras = written(tmp_path, [frame()], scene)
    assert run(cloud, "--cameras", cameras, "-o", tmp_path / "out") == 0
    assert "look at the pictures" in capsys.readouterr().out


class Streets:
    """A dataset of one street, and of one scene without images."""

    name, classes, fields = "streets", CLASSES, frozenset({"color"})

    def splits(self):
        return ("train",)

    def scenes(self, split):
        return ("blind", "street")

    def load(self, split, scene):
        return street()

    def frames(self, split, scene):
        return (frame(depth=True),) if scene == "street" else ()


@pytest.fixture
def dataset(monkeypatch):
    monkeypatch.setattr("pointseg.datasets.open_dataset", lambda *_, **__: Streets())


def test_a_scene_of_a_dataset(tmp_path, dataset, capsys):
    assert run("--dataset", "scannet", "-o", tmp_path) == 0
    printed = capsys.readouterr().out
    assert "ahead" in printed and "100% of the points are at the distance" in printed
    assert run("--dataset", "scannet", "--scene", "blind", "-o", tmp_path) == 2
    assert "scene train/blind has no images" in capsys.readouterr().err


def test_mistakes_are_one_line_and_exit_code_2(tmp_path, dataset, capsys, monkeypatch):
    cloud, cameras = written(tmp_path, [frame()], street())
    write_cloud(tmp_path / "empty.ply", Scene(coord=np.zeros((0, 3), np.float32)))
    out = ("-o", tmp_path / "out")
    for arguments, message in (
        ((), "--dataset"),
        ((cloud, "--dataset", "scannet"), "CLOUD: "),
        ((cloud,), "--cameras"),
        ((cloud, "--cameras", tmp_path / "lost.json"), "lost.json"),
        ((tmp_path / "lost.ply", "--cameras", cameras), "lost.ply"),
        ((cloud, "--cameras", cameras, "--split", "train"), "--split: "),
        (("--dataset", "scannet", "--cameras", cameras), "--cameras: "),
        (("--dataset", "scannet", "--unit", "foot"), "--unit: "),
        ((cloud, "--cameras", cameras, "--near", 5, "--far", 2), "--far"),
    ):
        assert run(*arguments, *out) == 2, arguments
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("pointseg-")]
        assert message in line, (arguments, line)
    blind = type("Blind", (), {"name": "blind", "splits": lambda self: ("train",)})
    monkeypatch.setattr("pointseg.datasets.open_dataset", lambda *_, **__: blind())
    assert run("--dataset", "scannet", *out) == 2
    assert "--dataset scannet: has no images" in capsys.readouterr().err


def test_an_image_of_another_size_is_reported_and_ends_badly_when_it_is_the_only_one(
    tmp_path, capsys
):
    small = replace(frame(), camera=frame().camera.resized(30, 40))
    cloud, cameras = written(tmp_path, [small], street())
    content = json.loads(cameras.read_text())
    content["views"][0] |= {"width": 40, "height": 30}
    cameras.write_text(json.dumps(content))
    assert run(cloud, "--cameras", cameras, "-o", tmp_path / "out") == 2
    assert "is 80 x 60 pixels (width x height), but the intrinsics" in capsys.readouterr().err
