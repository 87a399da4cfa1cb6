"""Where things lie: frusta of hand-worked cameras, parts, the first viewpoint, and the point that a click meets."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dinomed3d.lifting import Camera
from pointseg.images.readers.frame import Frame
from pointseg.scene import Scene
from pointseg.viewing.clouds import ViewedCloud
from pointseg.viewing.frusta import frustum_of, picture_of
from pointseg.viewing.layout import parts_of, picked, point_size, up_vector, viewpoint_of


class Grey:
    def read(self):
        return np.full((60, 80, 3), 77, np.uint8)

    def key(self):
        return "grey"


def test_a_camera_that_looks_along_x_from_utm():
    # x of the image is -y of the world, its y is -z: it stands upright, 10 m above the shift
    rotation = np.array([[0, -1, 0], [0, 0, -1], [1, 0, 0]], float)
    centre = np.array([500_003.0, 20.0, 10.0])
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, -rotation @ centre
    matrix = torch.tensor([[40.0, 0, 40], [0, 30.0, 30], [0, 0, 1]], dtype=torch.float64)
    camera = Camera(intrinsics=matrix, size=(60, 80), world_to_camera=torch.from_numpy(pose))
    frame = Frame(name="one", camera=camera, image=Grey())
    found = frustum_of(frame, np.array([500_000.0, 0, 0]))
    assert found.fov == pytest.approx(np.pi / 2), "half of 60 px at a focal length of 30"
    assert found.aspect == pytest.approx(1.0), "80 px at 40 is as wide as 60 px at 30 is high"
    assert found.position == pytest.approx((3, 20, 10))
    assert found.forward == pytest.approx((1, 0, 0)) and found.up == pytest.approx((0, 0, 1))
    assert found.wxyz == pytest.approx((0.5, -0.5, 0.5, -0.5))
    assert picture_of(frame, 40).shape == (30, 40, 3) and picture_of(frame, 999).shape == (
        60,
        80,
        3,
    )


def viewed(coord, labels, reference=None):
    return ViewedCloud("a", Scene(coord=coord), len(coord), labels, reference)


def test_parts_are_classes_and_verdicts_and_ceilings():
    labels = np.array([0, 0, 1, -1], np.int32)
    cloud = viewed(np.eye(4, 3, dtype=np.float32), labels, np.array([0, 1, -1, 0], np.int32))
    parts = [(p.cloud, p.label, p.verdict, p.rows.tolist()) for p in parts_of(7, cloud, up="z")]
    assert parts == [(7, -1, 2, [3]), (7, 0, 1, [0]), (7, 0, 2, [1]), (7, 1, 0, [2])]
    random = np.random.default_rng(0)
    floor = np.append(random.uniform(0, 5, (9000, 2)), np.zeros((9000, 1)), 1).astype(np.float32)
    room = np.concatenate([floor, floor + np.float32([0, 0, 2.5])])
    bottom, top = parts_of(0, viewed(room, np.zeros(len(room), np.int32)), up="z")
    assert not bottom.is_ceiling and bottom.rows.max() < 9000
    assert top.is_ceiling and top.rows.min() >= 9000


@pytest.mark.parametrize(("up", "axis", "sign"), [("z", 2, 1), ("-y", 1, -1), ("x", 0, 1)])
def test_the_first_view_is_from_above(up, axis, sign):
    coord = np.random.default_rng(0).uniform(-1, 1, (1000, 3)).astype(np.float32)
    view = viewpoint_of([coord], up)
    assert np.abs(view.look_at).max() < 0.2
    assert sign * view.position[axis] > view.radius
    assert up_vector(up)[axis] == sign
    wider = viewpoint_of([coord], up, [(0.0, 0.0, 1.8)])
    assert wider.radius > view.radius
    assert viewpoint_of([coord], up, [(0.0, 0.0, 1e6)]).radius < 3 * view.radius, "a far camera"


def test_points_are_about_as_large_as_their_distance():
    grid = np.stack(np.meshgrid(*[np.arange(30) * 0.1] * 2, [0.0]), -1).reshape(-1, 3)
    assert 0.1 <= point_size([grid.astype(np.float32)]) <= 0.2
    assert point_size([np.ones((5, 3), np.float32)]) > 0 < point_size([np.ones((1, 3), np.float32)])


def test_a_click_meets_the_first_point_near_its_ray():
    coord = np.array([[0, 0, 5], [0, 0, 9], [0, 1, 2], [0, 0, -3]], np.float32)
    along = np.array([0.0, 0, 1])
    thin = {"radius": 0.0, "slack": 0.01}
    assert picked(coord, np.zeros(3), along, **thin) == (0, 5.0)
    assert picked(coord, np.array([0, 0, 6.0]), along, **thin) == (1, 3.0)
    assert picked(coord, np.array([5.0, 0, 0]), along, **thin) is None


def test_a_click_on_the_disc_of_a_point_is_a_click_on_the_point():
    along = np.array([0.0, 0, 1])
    wall = np.array([[0.3, 0, 4], [-0.2, 0, 4.1], [0, 0, 9]], np.float32)
    discs = {"slack": 0.001, "radius": 0.35}
    # in both discs of the wall: the nearer centre, not the point behind the wall that lies on the ray
    assert picked(wall, np.zeros(3), along, **discs) == (1, pytest.approx(4.1))
    assert picked(wall, np.array([0.6, 0, 0]), along, **discs) == (0, 4.0)
    assert picked(wall, np.array([0.7, 0, 0]), along, **discs) is None
    assert picked(wall, np.zeros(3), along, slack=0.001, radius=0.1) == (2, 9.0)
