"""What is found where images and points do not meet."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dinomed3d.lifting import Cameras, z_buffer
from dinomed3d.runtime.errors import UserError
from pointseg.images.camera_check.agreement import (
    Agreement,
    ProjectedPoints,
    compute_agreement,
    project_points,
    render_depth_map,
)
from pointseg.images.camera_check.check import CheckSpec, check_cameras
from pointseg.images.camera_check.depth_units import depth_factor, explain_depth_factor
from pointseg.images.camera_check.issues import Issue
from pointseg.images.camera_check.pose_check import (
    compare_pose_hypotheses,
)
from pointseg.images.camera_check.pose_conventions import (
    BOTH,
    INVERTED,
    OPENGL,
    alternative_poses,
)
from pointseg.images.readers.frame import ImagesError
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.images.street import (
    Held,
    camera,
    depth_map,
    frame,
    inverted,
    photo,
    posed,
    street,
)

RULE = VisibilityConfig(occlusion="depth")
FLIP = torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64))
POSE = camera().world_to_camera


def check(tmp_path, view, scene=None, **settings):
    frames = view if isinstance(view, list) else [view]
    scene = street() if scene is None else scene
    spec = CheckSpec(
        scene=scene, frames=frames, out=tmp_path, size=(80, 60), **{"visibility": RULE, **settings}
    )
    return check_cameras(spec)


def test_figures_of_a_view_that_fits():
    shown = project_points(camera(), torch.from_numpy(street().coord), RULE)
    assert shown.inside.all() and shown.visible.all()
    found = compute_agreement(
        shown,
        camera(),
        image=photo(),
        depth=torch.from_numpy(depth_map()),
        color=street()["color"],
        depth_tolerance_m=0.1,
    )
    assert (found.points, found.inside, found.visible) == (4800, 4800, 4800)
    assert (found.depth_known, found.depth_fits) == (4800, 4800)
    assert found.depth_error_m < 1e-5 and found.color_error == 0
    assert 40 < found.chance_color_error < 90
    assert found.ground_correlation < -0.7


def test_the_orders_of_rows_and_of_distances_are_compared():
    row = torch.randperm(500).double()
    every = torch.ones(500, dtype=torch.bool)
    shown = ProjectedPoints(
        uv=torch.stack([row, row], 1), depth=1 / (1 + row), inside=every, visible=every
    )
    found = compute_agreement(
        shown, camera(), image=None, depth=None, color=None, depth_tolerance_m=0.1
    )
    assert found.ground_correlation == pytest.approx(-1)


def test_a_fitting_view_is_called_so(tmp_path):
    found = check(tmp_path, frame(depth=True))
    assert found.pose_check.alternative is None and "100%" in found.pose_check.reason
    assert found.issues == () and found.seen == found.inside == 1
    assert {path.relative_to(tmp_path).as_posix() for path in found.pictures} == {
        "cloud.png",
        "views/ahead.png",
    }
    with Image.open(tmp_path / "cloud.png") as picture:
        assert picture.width == 2 * 80 + 8


@pytest.mark.parametrize("depth", [True, False])
@pytest.mark.parametrize("colored", [True, False])
@pytest.mark.parametrize(
    ("pose", "other"),
    [
        (torch.linalg.inv(POSE), INVERTED),
        (FLIP @ POSE, OPENGL),
        (torch.linalg.inv(FLIP @ POSE), BOTH),
    ],
)
def test_poses_the_other_way_are_found_whatever_the_evidence(tmp_path, depth, colored, pose, other):
    found = check(tmp_path, posed(frame(depth=depth), pose), street(colored=colored))
    assert found.pose_check.alternative == other
    assert len(found.issues) == 1  # not all that follows from it
    if other != OPENGL:
        assert "inverted" in str(found.issues[0])
    assert (tmp_path / "views" / "ahead.other.png").is_file()


def before_a_wall():
    """Points of a square of 1 m, 2 m away, and of a wall 6 m away."""
    sides = np.arange(-0.5, 0.51, 0.025), np.arange(-4, 4.01, 0.05)
    parts = [
        np.stack([*map(np.ravel, np.meshgrid(side, side)), np.full(len(side) ** 2, depth)], 1)
        for side, depth in zip(sides, (2.0, 6.0), strict=True)
    ]
    return torch.from_numpy(np.concatenate(parts).astype(np.float32)), len(parts[0])


def test_large_images_get_a_smaller_map_that_hides_the_same(monkeypatch):
    large = camera(
        intrinsics=torch.tensor([[900.0, 0, 480], [0, 900, 360], [0, 0, 1]]),
        size=(720, 960),
        world_to_camera=torch.eye(4),
    )
    points, before = before_a_wall()
    whole = render_depth_map(large, points)
    monkeypatch.setattr("pointseg.images.camera_check.agreement.MAX_RENDERED_PIXELS", 100_000)
    small = render_depth_map(large, points)
    assert whole.shape == (720, 960) and small.shape == (273, 365)
    uv, inside, _ = Cameras([large]).project(0, points)
    found = [project_points(large, points, RULE, depth=depth).visible for depth in (whole, small)]
    assert found[0][:before].all() and found[1][:before].all()
    assert (inside[before:] & ~found[1][before:]).sum() > 500
    # Apart from the square's outline, whose gap between points and a pixel of the map count.
    off = (uv - torch.tensor([480, 360])).abs().amax(1) - 225
    assert torch.equal(found[0][off.abs() > 18], found[1][off.abs() > 18])


def test_a_check_makes_no_larger_map(tmp_path, monkeypatch):
    made = []

    def kept(camera, points, **settings):
        made.append(camera.size)
        return z_buffer(camera, points, **settings)

    monkeypatch.setattr("pointseg.images.camera_check.agreement.z_buffer", kept)
    monkeypatch.setattr("pointseg.images.camera_check.agreement.MAX_RENDERED_PIXELS", 1200)
    found = check(tmp_path, frame(), visibility=VisibilityConfig(occlusion="z-buffer"))
    assert set(made) == {(30, 40)}
    assert (
        found.seen > 0.9
    )  # far ground recedes by more than the margin within one pixel of the map


def test_worlds_that_were_turned_are_turned_back_before_poses_are_inverted(tmp_path):
    turn = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
    world = torch.eye(4, dtype=torch.float64)
    world[:3, :3] = torch.from_numpy(turn)
    wrong = posed(frame(), torch.linalg.inv(POSE) @ world.T)
    scene = street().moved(street().coord @ turn.T.astype(np.float32))
    assert check(tmp_path, wrong, scene, turn=turn).pose_check.alternative == INVERTED


def test_georeferenced_points_and_poses(tmp_path):
    origin = np.array([4.5e5, 5.3e6, 200.0])
    away = torch.eye(4, dtype=torch.float64)
    away[:3, 3] = -torch.from_numpy(origin)
    scene = replace(street(), origin=origin)
    good = posed(frame(depth=True), POSE @ away)
    assert check(tmp_path, good, scene).pose_check.alternative is None
    assert check(tmp_path, inverted(good), scene).pose_check.alternative == INVERTED


def test_one_view_of_several_is_named_alone(tmp_path):
    views = [replace(frame(), name=f"v{i}") for i in range(3)]
    views[1] = inverted(views[1])
    found = check(tmp_path, views)
    assert found.pose_check.alternative is None
    (issue,) = [f for f in found.issues if "inverted" in f.text]
    assert issue.text.startswith("v1: the poses look inverted")


def test_depths_in_another_unit(tmp_path):
    view = replace(frame(), depth=Held(depth_map() * 1000, "depth"))
    found = check(tmp_path, view)
    (issue,) = found.issues
    assert "says 1000 times the distance" in str(issue)
    shown = project_points(camera(), torch.from_numpy(street().coord), RULE)
    for factor in (1000.0, 0.2, 0.3048):
        depth = torch.from_numpy(depth_map() * factor)
        assert depth_factor(shown, camera(), depth) == pytest.approx(factor, rel=0.01)
    assert depth_factor(shown, camera(), torch.from_numpy(depth_map() + 0.05)) is None
    assert depth_factor(shown, camera(), torch.zeros(60, 80)) is None
    anything = torch.rand(60, 80, generator=torch.Generator().manual_seed(0)) * 50 + 1
    assert depth_factor(shown, camera(), anything) is None


METRES = {"metre": 1.0, "millimetre": 0.001, "foot": 0.3048}


@pytest.mark.parametrize(
    ("factor", "scale", "unit_m", "expected"),
    [
        (0.2, 5000.0, 1.0, "1/5 of the dist.*: the map is in another unit .depth_scale 1000 would fit, not 5000.$"),
        (1000.0, 1.0, 1.0, "says 1000 times .*: the map is in another unit .depth_scale 1000 would fit, not 1.$"),
        (0.0009995, 1000.0, 1.0, "either the unit of points and poses is millimetre, not metre .--unit milli.*"
         "or the map is in another unit .depth_scale 1 would fit, not 1000.$"),
        (0.001, 50.0, 1.0, "lie on it: the unit of points and poses is millimetre, not metre .*yaml.$"),
        (0.3, None, 1.0, "lie on it: the unit of points and poses is foot, not metre .*yaml.$"),
        (1000.0, 1000.0, 0.001, "either the unit of points and poses is metre, not milli.*depth_scale 1000000 would"),
        (1e5, 1000.0, 1.0, "check the units of the depth map, the points and the poses"),
        (0.01, 50.0, 1.0, "check the units of the depth map, the points and the poses"),
        (0.001, 1000.0, None, "lie on it: the map is in another unit .depth_scale 1 would fit"),
    ],
)  # fmt: skip
def test_what_is_in_another_unit_is_named_as_far_as_it_can_be(factor, scale, unit_m, expected):
    words = explain_depth_factor(factor, scale=scale, unit_m=unit_m, units=METRES)
    assert re.search(expected, words), words


def test_a_view_that_sees_nothing_and_one_where_all_is_hidden(tmp_path):
    away = POSE.clone()
    away[0, 3] = 500  # far to the side
    depth = np.random.default_rng(0).uniform(0.1, 1.2, (60, 80)).astype(np.float32)
    wall = replace(frame(), name="wall", depth=Held(depth))
    views = [replace(posed(frame(), away), name="away"), wall, frame()]
    found = check(tmp_path, views)
    notes = {str(issue): issue.note for issue in found.issues}
    assert notes == {  # as right calibrations have it
        "away: no point lies inside the image": True,
        "wall: 4800 points lie inside the image, and all of them are occluded": True,
    }
    assert found.showing == 2


def test_a_depth_map_that_looks_through_the_points_is_a_problem(tmp_path):
    depth = np.random.default_rng(0).uniform(20, 60, (60, 80)).astype(np.float32)
    other = replace(frame(), name="other", depth=Held(depth))
    (issue,) = check(tmp_path, [other, frame()]).issues
    assert "other: 4800 points lie inside the image, and all of them are occluded, many" in str(
        issue
    )
    assert "is it of this image?" in issue.text and not issue.note


def photos(showing):
    """40 photos in a row, few of which show the street; some would if they looked right."""
    found = []
    for number in range(40):
        pose = POSE.clone()
        pose[0, 3] += 0 if number in showing else 15 * (number - 21)
        found.append(replace(posed(frame(), pose), name=f"v{number}"))
    return found


@pytest.mark.parametrize("count", [8, 2, pytest.param(None, marks=pytest.mark.slow)])
def test_most_images_may_show_other_parts_of_a_site(tmp_path, count):
    wall = street(colored=False)
    wall = wall.select(wall.coord[:, 2] > 0.01)  # where nothing tells but what is in view
    for number, showing in enumerate([(21, 22, 23), (21,)]):
        found = check(tmp_path / str(number), photos(showing), wall, count=count)
        assert found.pose_check.alternative is None and found.showing == len(showing)
        assert all(issue.note for issue in found.issues)
        if count is not None:
            names = [f"v{each}" for each in showing][:count]
            assert [view.name for view in found.views] == names and found.inside == 1


def test_where_no_image_shows_the_scene_the_poses_that_would_are_found(tmp_path):
    wall = street(colored=False)
    wall = wall.select(wall.coord[:, 2] > 0.01)
    views = [posed(each, torch.linalg.inv(FLIP @ POSE)) for each in photos(())]
    found = check(tmp_path, views, wall, count=8)
    assert found.pose_check.alternative == BOTH and found.showing == 0 and len(found.views) == 8


def test_no_view_sees_anything(tmp_path):
    found = check(tmp_path, frame(), visibility=VisibilityConfig(far_m=0.5))
    (issue,) = found.issues
    assert "none of its 4800 points is visible" in issue.text and "0.5 m" in issue.text
    assert found.seen == 0


def test_images_that_cannot_be_read(tmp_path):
    small = replace(frame(), name="small", image=Held(photo()[:30]))
    found = check(tmp_path, [small, frame()])
    assert len(found.views) == 1
    assert "is 80 x 30 pixels" in str(found.issues[0])
    with pytest.raises(ImagesError, match="is 80 x 30 pixels"):
        check(tmp_path, small)
    narrow = replace(frame(), depth=Held(np.ones((60, 20), np.float32)))
    assert "aspect ratio" in str(check(tmp_path, narrow).issues[0])


def test_nothing_to_check(tmp_path):
    with pytest.raises(UserError, match="has no images"):
        check(tmp_path, [])
    with pytest.raises(UserError, match="has no points"):
        check(tmp_path, frame(), street().select(np.zeros(0, np.int64)))


def evidence(**figures):
    return Agreement(**{"points": 1000, "inside": 300, "visible": 300, **figures})


def test_what_tells_most_is_asked_first():
    depth = {"depth_known": 300, "depth_error_m": 0.0}
    good = evidence(**depth, depth_fits=290, color_error=50.0, chance_color_error=50.0)
    bad = evidence(**depth, depth_fits=3, color_error=5.0, chance_color_error=50.0)
    assert compare_pose_hypotheses([good], {INVERTED: [bad]}).alternative is None
    assert compare_pose_hypotheses([bad], {INVERTED: [good]}).alternative == INVERTED


def test_evidence_that_both_readings_have_tells_nothing():
    alike = evidence(ground_correlation=-0.8)
    result = compare_pose_hypotheses([alike], {INVERTED: [evidence(ground_correlation=-0.75)]})
    assert result.alternative is None and result.reason == ""
    assert compare_pose_hypotheses([evidence()], {}).reason == ""


def test_many_more_points_in_view():
    few, many = evidence(inside=1), evidence(inside=400)
    assert compare_pose_hypotheses([few], {INVERTED: [many]}).alternative == INVERTED
    assert compare_pose_hypotheses([evidence(inside=100)], {INVERTED: [many]}).alternative is None


def test_a_pose_that_is_its_own_inverse_has_no_alternative():
    still = camera(world_to_camera=torch.eye(4))
    assert INVERTED not in alternative_poses(still) and OPENGL in alternative_poses(still)


def test_findings_name_some_of_their_views():
    assert str(Issue("odd", ("a", "b", "c", "d"))) == "a, b, c and 1 more: odd"
    assert str(Issue("odd")) == "odd"
