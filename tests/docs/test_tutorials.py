"""The scripts and descriptions of the tutorials make what their pages say."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import pointseg
from pointseg.datasets.folder.description import read_description
from pointseg.files import read_cloud
from pointseg.images.readers.camera_files import read_cameras
from tests.docs.pages import block


def script(code: str) -> tuple[dict, list[tuple]]:
    """The functions of a page's script, and the arguments with which its last lines call the writer."""
    definitions, loop = code.split("\n\n\nfor seed")
    names: dict = {}
    exec(definitions, names)
    calls: list[tuple] = []
    (writer,) = (name for name in names if name.startswith("write_"))
    exec(f"for seed{loop}", {**names, writer: lambda *given: calls.append(given)})
    return names, calls


def description(content: str, tmp_path):
    (tmp_path / "dataset.yaml").write_text(content, encoding="utf-8")
    return read_description(tmp_path / "dataset.yaml", default_name="x")


def folders(calls) -> dict[str, int]:
    """How many scenes a script writes into each of its folders."""
    found = [call[0].parts[1] for call in calls]
    return {name: found.count(name) for name in found}


def test_clouds(tmp_path):
    names, calls = script(block("docs/tutorials/clouds.md", "def write_yard"))
    assert folders(calls) == {"train": 4, "val": 1, "new": 1}
    names["write_yard"](tmp_path / "a.ply", 0)
    cloud = read_cloud(tmp_path / "a.ply")
    found = description(block("docs/tutorials/clouds.md", "classes:"), tmp_path)
    assert np.unique(cloud.fields["segment"]).tolist() == list(range(len(found.classes.names)))
    assert cloud.fields["color"].shape == (16_000, 3)


def test_airborne(tmp_path):
    names, calls = script(block("docs/tutorials/airborne.md", "def write_tile"))
    assert folders(calls) == {"train": 3, "val": 1, "new": 1}
    names["write_tile"](tmp_path / "a.laz", *calls[0][1:])
    cloud = read_cloud(tmp_path / "a.laz")
    found = description(block("docs/tutorials/airborne.md", "classes:"), tmp_path)
    assert found.classes.names[0] == "ground" and found.label == "classification"
    assert np.unique(cloud.fields["classification"]).tolist() == [2, 4, 5, 6]
    assert {"returns", "strength"} <= cloud.fields.keys()


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    folder = tmp_path_factory.mktemp("yard")
    names, calls = script(block("docs/tutorials/own_cameras.md", "def write_yard"))
    assert folders(calls) == {"train": 6, "val": 1, "new": 1}
    names["write_yard"](folder, 0)
    return folder


def kitti(yard, monkeypatch):
    """The manifest that the page's script writes for the first image."""
    words = [str(yard / name) for name in ("calib.txt", "images/0.png", "cameras.json")]
    monkeypatch.setattr(sys, "argv", ["kitti_cameras.py", *words])
    exec(block("docs/tutorials/own_cameras.md", "def read_calib"), {})
    return yard / "cameras.json"


def test_three_ways_to_write_the_same_cameras(yard, monkeypatch):
    cloud = read_cloud(yard / "scan.ply")
    points, labels = torch.from_numpy(cloud.coord), cloud.fields["segment"]
    phone = read_cameras(yard / "transforms.json")
    colmap = read_cameras(yard / "colmap", images=yard / "images")
    (car,) = read_cameras(kitti(yard, monkeypatch))
    assert len(phone) == len(colmap) == 6
    for one, other in [*zip(phone, colmap, strict=True), (phone[0], car)]:
        uv, depth = one.camera.project(points)
        again, _ = other.camera.project(points)
        np.testing.assert_allclose(uv.numpy(), again.numpy(), atol=1e-3)
    # what the photos show at the points: dark battens on crates alone, and the grey of the floor
    image = phone[0].read_image().mean(-1)
    shown = image[uv[:, 1].long().clamp(0, 239), uv[:, 0].long().clamp(0, 319)]
    ground = shown[(labels == 0) & (cloud.coord[:, 1] > 2)]
    assert depth.min() > 0 and np.median(np.abs(ground - 120)) < 20
    dark = [(shown[labels == label] < 80).mean() for label in (0, 1, 2)]
    assert dark[1] > 0.2 and max(dark[0], dark[2]) < 0.5 * dark[1]


def test_a_calibration_of_object_detection_by_hand(tmp_path, monkeypatch):
    """Camera 2 lies beyond camera 0, and laser points are turned by a quarter before they are rectified."""
    P2 = "2 0 1 4  0 2 1 0  0 0 1 0"  # K [I | t] with t = (2, 0, 0)
    Tr, R0 = "1 0 0 0  0 1 0 7  0 0 1 5", "0 -1 0  1 0 0  0 0 1"
    text = f"P2: {P2}\nR0_rect: {R0}\nTr_velo_to_cam: {Tr}\n"
    (tmp_path / "calib.txt").write_text(text, encoding="utf-8")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 3)).save(tmp_path / "images" / "0.png")
    found = json.loads(kitti(tmp_path, monkeypatch).read_text(encoding="utf-8"))
    pose = [[0, -1, 0, -7 + 2], [1, 0, 0, 0], [0, 0, 1, 5], [0, 0, 0, 1]]
    assert found["views"][0]["pose"] == pose and (found["width"], found["height"]) == (4, 3)


def test_a_robot_gives_what_the_command_reads(yard, monkeypatch, capsys):
    """The frames that the page's loop gives are those of transforms.json."""
    given = []

    class Net:
        classes = ("floor", "crate", "cabinet")

        def predict(self, points, *, frames):
            given.append((points, frames))
            return np.array([0, 0, 1])

    loaded = []
    monkeypatch.setattr(pointseg, "load_model", lambda *a, **k: (loaded.append((a, k)), Net())[1])
    monkeypatch.chdir(yard)
    code = block("docs/tutorials/own_cameras.md", "def sensors")
    exec(code.replace('"yards/new/yard7"', '"."'), {})
    assert loaded == [(("ditr/best.pt",), {"weights": "hub"})]
    assert capsys.readouterr().out == "{'floor': 2, 'crate': 1, 'cabinet': 0}\n"
    ((points, frames),) = given
    assert points.shape == (12_000, 3)
    for found, wanted in zip(frames, read_cameras(yard / "transforms.json"), strict=True):
        for part in ("intrinsics", "world_to_camera"):
            torch.testing.assert_close(
                getattr(found.camera, part), getattr(wanted.camera, part), atol=1e-9, rtol=0
            )
        assert np.array_equal(found.read_image(), wanted.read_image())


def test_cameras_are_found_for_each_cloud(yard, tmp_path):
    found = description(block("docs/tutorials/own_cameras.md", "classes:"), tmp_path)
    assert found.classes.names == ("floor", "crate", "cabinet")
    assert json.loads((yard / "transforms.json").read_text(encoding="utf-8"))["frames"]
