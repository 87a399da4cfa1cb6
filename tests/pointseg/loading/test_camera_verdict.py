"""The check of cameras before a training: closed rooms whose poses are read rightly or wrongly."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dinomed3d.lifting import Camera
from dinomed3d.runtime.errors import UserError
from pointseg.datasets.mixture import Mixture, SourceDataset
from pointseg.images.camera_check.check import CameraCheck, CheckSpec, check_cameras
from pointseg.images.camera_check.pose_conventions import OPENGL
from pointseg.images.config import ImageConfig
from pointseg.images.readers.frame import Frame, ImagesError
from pointseg.loading.camera_verdict import camera_verdicts, require_plausible_cameras
from pointseg.scene import Scene
from tests.pointseg.images.given import Given

SIZE = (36, 48)
SIDES = np.array([6.0, 5.0, 2.8])
FLIP = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
CONFIG = ImageConfig()


def colours(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth patterns on the walls, unlike each other, 0 to 255."""
    phase = np.array([0.0, 1, 2])
    return 128 + 120 * np.sin(places @ np.array([[2.0, 3, 1], [1, 2, 3], [3, 1, 2]]) + phase)


def upright(heading: float, at: tuple[float, float, float]) -> torch.Tensor:
    """World to camera: level, looking along a heading."""
    s, c = np.sin(heading), np.cos(heading)
    turn = np.array([[s, -c, 0], [0, 0, -1], [c, s, 0]])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, -turn @ np.array(at)
    return torch.from_numpy(pose)


def photo(camera: Camera) -> NDArray[np.uint8]:
    """What a camera in the room sees of its walls."""
    rays = camera.unproject(torch.ones(SIZE, dtype=torch.float64)).numpy() - camera.centre.numpy()
    centre = camera.centre.numpy()
    with np.errstate(divide="ignore"):
        far = np.maximum((0 - centre) / rays, (SIDES - centre) / rays).min(-1)
    return colours(centre + rays * far[..., None]).astype(np.uint8)


def room(colored: bool = True) -> Scene:
    rng = np.random.default_rng(0)
    places = rng.random((6000, 3)) * SIDES
    axis, end = rng.integers(0, 3, 6000), rng.integers(0, 2, 6000)
    places[np.arange(6000), axis] = end * SIDES[axis]
    fields = {"color": colours(places).astype(np.float32)} if colored else {}
    return Scene(coord=places.astype(np.float32), fields=fields, name="room")


@dataclass
class Rooms:
    """Some rooms, all the same; only every second one has images."""

    colored: bool = True
    noise: bool = False
    flip: bool = False
    name = "rooms"
    classes: Any = None
    fields = frozenset({"color"})
    voxel_m = 0.1

    def splits(self) -> tuple[str, ...]:
        return ("train",)

    def scenes(self, split: str) -> tuple[str, ...]:
        return tuple(f"r{number}" for number in range(9))

    def load(self, split: str, scene: str) -> Scene:
        return room(self.colored)

    def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
        if int(scene[1:]) % 2:
            return ()
        found = []
        for number in range(5):
            camera = Camera(
                intrinsics=torch.tensor([[30.0, 0, 24], [0, 30, 18], [0, 0, 1]]),
                size=SIZE,
                world_to_camera=upright(0.4 + 1.3 * number, (2.0 + number / 4, 2.5, 1.5)),
            )
            pixels = photo(camera)
            if self.noise:
                rng = np.random.default_rng(number)
                pixels = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
            if self.flip:
                camera = replace(camera, world_to_camera=FLIP @ camera.world_to_camera)
            found.append(Frame(name=f"v{number}", camera=camera, image=Given(pixels)))
        return tuple(found)


def said(dataset: Any) -> list[str]:
    lines: list[str] = []
    for verdict in camera_verdicts(dataset, ("train",), CONFIG):
        require_plausible_cameras(verdict, how_to_look="LOOK", go_on="GO ON", say=lines.append)
    return lines


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointseg.loading.camera_verdict.SCENES", 1)


def test_rooms_that_fit_are_said_so_on_one_line_and_draw_no_random_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pointseg.loading.camera_verdict.POINTS", 5000)  # of 6000
    monkeypatch.setattr("pointseg.loading.camera_verdict.PIXELS", 1000)  # of 1728
    sizes = set()

    def noted(spec: CheckSpec) -> CameraCheck:
        sizes.update(frame.camera.size for frame in spec.frames)
        return check_cameras(spec)

    monkeypatch.setattr("pointseg.loading.camera_verdict.check_cameras", noted)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    (line,) = said(Rooms())
    assert "plausible as stated" in line and "colours" in line
    assert "12 images of 3 scenes (train/r0, train/r6, train/r4)" in line
    assert sizes == {(27, 36)}  # 972 pixels
    assert torch.equal(torch.get_rng_state(), before[0]) and random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # type: ignore[arg-type]


def test_colours_that_show_other_axes_are_refused_with_the_way_on(few: None) -> None:
    with pytest.raises(UserError, match="OpenGL's.*Correct them and look with LOOK.*with GO ON"):
        said(Rooms(flip=True))


@pytest.mark.parametrize("dataset", [Rooms(noise=True), Rooms(colored=False)])
def test_where_pictures_cannot_tell_upside_down_cameras_are_a_warning(
    dataset: Rooms, few: None
) -> None:
    (line,) = said(dataset)
    assert "plausible as stated; 100% of the cameras are upright" in line
    (line,) = said(replace(dataset, flip=True))
    assert line.startswith("warning: the cameras look wrong") and "OpenGL's" in line
    assert "upside down as stated" in line and "LOOK" in line


def test_each_dataset_of_a_mixture_has_its_own_verdict(few: None) -> None:
    sources = [SourceDataset(Rooms(flip=flip), ("train",), ()) for flip in (False, True)]  # type: ignore[arg-type]
    good, wrong = camera_verdicts(Mixture(sources), ("train",), CONFIG)
    assert list(good.checks) == ["0/train/r0"] and list(wrong.checks) == ["1/train/r0"]
    assert good.poses.alternative is None and wrong.poses.alternative == OPENGL


def test_one_scene_that_is_wrong_among_others_is_a_warning() -> None:
    class Some(Rooms):
        def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
            return Rooms(flip=scene == "r6").frames(split, scene)

    first, second = said(Some())
    assert "plausible as stated" in first
    assert second.startswith("warning: cameras of train/r6: the camera axes look like OpenGL's")


def test_nothing_and_what_cannot_be_read() -> None:
    class Blind(Rooms):
        def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
            return ()

    assert said(Blind()) == []

    class Small(Rooms):
        def frames(self, split: str, scene: str) -> tuple[Frame, ...]:
            whole = super().frames(split, scene)
            return tuple(
                replace(each, image=Given(np.zeros((9, 9, 3), np.uint8))) for each in whole
            )

    with pytest.raises(ImagesError, match="is 9 x 9 pixels"):
        said(Small())
