"""cameras.json: read, written, and every message."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dinomed3d.lifting import Lens
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.images.readers.image_files import DepthFile, ImageFile
from pointseg.images.readers.manifest import read_manifest, write_manifest
from tests import ROOT
from tests.pointseg.images.given import K, frame, shifted

VIEW = {
    "image": "color/7.jpg",
    "width": 60,
    "height": 40,
    "K": K.tolist(),
    "pose": shifted(1, 2, 3).tolist(),
    "pose_direction": "world_to_camera",
}


def write(path: Path, *views: dict[str, Any], **head: Any) -> Path:
    found = {"format": "pointseg-cameras-1", "views": list(views), **head}
    path.write_text(json.dumps({key: v for key, v in found.items() if v is not None}))
    return path


def test_a_view_as_people_write_it(tmp_path: Path) -> None:
    (found,) = read_manifest(write(tmp_path / "cameras.json", VIEW))
    assert found.name == "7" and found.camera.size == (40, 60) and found.depth is None
    assert found.image == ImageFile(tmp_path / "color" / "7.jpg")
    assert found.camera.centre.tolist() == [-1, -2, -3] and found.camera.distortion is None
    assert (found.camera.intrinsics.numpy() == K).all()


def test_both_directions_say_the_same(tmp_path: Path) -> None:
    other = {
        **VIEW,
        "pose": np.linalg.inv(shifted(1, 2, 3))[:3].tolist(),
        "pose_direction": "camera_to_world",
    }
    one, two = (read_manifest(write(tmp_path / "c.json", view))[0] for view in (VIEW, other))
    assert torch.equal(one.camera.world_to_camera, two.camera.world_to_camera)


def test_what_holds_for_all_views_is_said_once_and_may_be_said_otherwise(tmp_path: Path) -> None:
    shared = {key: VIEW[key] for key in ("width", "height", "K", "pose_direction")}
    own = {"pose": VIEW["pose"], "image": "a.png", "depth": "d.png"}
    path = write(
        tmp_path / "c.json",
        own,
        {**own, "name": "b", "depth_scale": 1, "depth_missing": [9], "distortion": [0.1, 0, 0, 0]},
        {**own, "name": "c", "depth": None, "pixel_centre": 0.5},
        **shared,
        depth_scale=5000,
        pixel_centre=0,
    )
    one, two, three = read_manifest(path)
    assert (one.name, two.name, three.name) == ("a", "b", "c")
    assert one.depth == DepthFile(tmp_path / "d.png", 5000.0)
    assert two.depth == DepthFile(tmp_path / "d.png", 1.0, (9,)) and three.depth is None
    assert two.camera.distortion == Lens(radial=(0.1, 0))
    assert one.camera.intrinsics[:2, 2].tolist() == [30.5, 20.5]  # OpenCV's centre of a pixel is 0
    assert three.camera.intrinsics[:2, 2].tolist() == [30, 20]


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    camera = frame(shifted(0.1, 1 / 3, -7)).camera
    bent = replace(camera, distortion=Lens(radial=(0.1, 0.2, 0.3)))
    fisheye = replace(camera, distortion=Lens(fisheye=True, radial=(0.1, 0, 0, 0.4)))
    divided = replace(camera, distortion=Lens(divisor=(0, 0.2), tangential=(0.1, 0)))
    inside, outside = tmp_path / "in" / "a.png", tmp_path / "out" / "b.png"
    frames = [
        Frame(name="a", camera=camera, image=ImageFile(inside)),
        Frame(name="ü", camera=bent, image=ImageFile(outside), depth=DepthFile(inside, 512.0, (65535.0,))),
        Frame(name="c", camera=fisheye, image=ImageFile(inside)),
        Frame(name="d", camera=divided, image=ImageFile(inside)),
    ]  # fmt: skip
    path = tmp_path / "in" / "cameras.json"
    write_manifest(path, frames)
    found = read_manifest(path)
    for one, two in zip(frames, found, strict=True):
        assert (one.name, one.image, one.depth) == (two.name, two.image, two.depth)
        assert one.camera.distortion == two.camera.distortion
        for key in ("intrinsics", "world_to_camera"):
            assert torch.equal(getattr(one.camera, key), getattr(two.camera, key))
    views = json.loads(path.read_text())["views"]
    assert views[0]["image"] == "a.png" and views[1]["image"] == outside.as_posix()
    write_manifest(path, [])
    assert read_manifest(path) == ()
    with pytest.raises(ValueError, match="view 'view': image and depth map must be files"):
        write_manifest(path, [frame()])


def test_the_example() -> None:
    frames = read_manifest(ROOT / "examples" / "cameras.json")
    ahead = torch.tensor([[0.5, 1.0, 1.2], [1.0, 0.5, 1.2]])  # before the first, before the second
    for number, found in enumerate(frames):
        uv, distance = found.camera.project(ahead[number : number + 1])
        assert uv[0].tolist() == pytest.approx([320, 240]) and distance[0] == pytest.approx(3)
        assert found.depth is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pose_direction": None}, "lacks 'pose_direction'"),
        ({"pose_direction": "c2w"}, "'pose_direction' must be camera_to_world or world_to_camera, got 'c2w'"),
        ({"K": None, "width": None}, "lacks K, width"),
        ({"image": 3}, "'image' must be text"),
        ({"width": 60.5}, "'width' must be a whole number of pixels"),
        ({"height": True}, "'height' must be a whole number of pixels"),
        ({"K": [[1, 2], [3, 4]]}, "'K' must be 3 x 3 numbers"),
        ({"K": "K"}, "'K' must be 3 x 3 numbers"),
        ({"K": [[30, 0, 30], [0, 30, 20], [0, 0, 2]]}, "'intrinsics' must have rows"),
        ({"pose": [[1, 2], [3]]}, "'pose' must be 4 x 4 or 3 x 4 numbers"),
        ({"K": [[10**400, 0, 30], [0, 30, 20], [0, 0, 1]]}, "'K' must be 3 x 3 numbers"),
        ({"pose": [[10**400] * 4] * 3}, "'pose' must be 4 x 4 or 3 x 4 numbers"),
        ({"pose": (2 * np.eye(4)[:3]).tolist()}, "not a rigid transform: its axes are scaled by 2"),
        ({"pose": np.full((4, 4), -np.inf).tolist()}, "not finite"),
        ({"distortion": [1, 2, 3]}, "'distortion' must be 4 or 5 or 8 numbers"),
        ({"distortion": "1234"}, "'distortion' must be"),
        ({"distortion": {"fisheye": 1}}, "'fisheye' must be true or false"),
        ({"distortion": {"radial": [1, None]}}, "'distortion' must be"),
        ({"distortion": {"radical": [1]}}, "'distortion': unknown key 'radical'; did you mean 'radial'"),
        ({"pixel_centre": 1}, "'pixel_centre' must be 0.5 or 0"),
        ({"depth": "d.png"}, "lacks 'depth_scale'"),
        ({"depth": "d.png", "depth_scale": 0.001}, r"'depth_scale' must be units per metre.*\(1000 for"),
        ({"depth": "d.png", "depth_scale": 1, "depth_missing": 3}, "'depth_missing' must be a list"),
        ({"depth": "d.png", "depth_scale": 1, "depth_missing": [10**400]}, "'depth_missing' must be a list"),
        ({"depth": "d.png", "depth_scale": 1, "depth_missing": [True]}, "'depth_missing' must be a list"),
        ({"name": ""}, "'name' must be text"),
        ({"posee": 1}, "unknown key 'posee'; did you mean 'pose'"),
        ({"zzz": 1}, "unknown key 'zzz'; known are name, image"),
    ],
)  # fmt: skip
def test_views_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    view = {key: value for key, value in {**VIEW, **change}.items() if value is not None}
    with pytest.raises(ImagesError, match=rf"c.json: view 1.*{message}"):
        read_manifest(write(tmp_path / "c.json", {**VIEW, "name": "first"}, view))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "'format' must be \"pointseg-cameras-1\", got 'list'"),
        ('{"format": "other"}', "got 'other'"),
        ('{"format": "pointseg-cameras-1"}', "'views' must be a list of objects"),
        ('{"format": "pointseg-cameras-1", "views": [1]}', "'views' must be a list of objects"),
        ('{"format": "pointseg-cameras-1", "view": []}', "unknown key 'view'; did you mean 'views'"),
        (json.dumps({"format": "pointseg-cameras-1", "views": [VIEW, VIEW]}), "two views are called '7'"),
    ],
)  # fmt: skip
def test_files_that_are_none_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "cameras.json"
    with pytest.raises(ImagesError, match="is missing; describe"):
        read_manifest(path)
    with pytest.raises(ImagesError, match="cannot be read"):
        read_manifest(tmp_path)
    path.write_text(text)
    with pytest.raises(ImagesError, match=f"cameras.json: .*{message}"):
        read_manifest(path)
