"""What images show: positions by hand, the tests of visibility, and messages where nothing is seen."""

from __future__ import annotations

import pickle
import time
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler

import numpy as np
import pytest
import torch

from dinomed3d.lifting import Lens
from dinomed3d.runtime.errors import UserError
from pointseg.images.config import ImageConfig
from pointseg.images.explain_unseen import depth_problem
from pointseg.images.projection import CHUNK, candidate_frames, compute_visibility, frames_in_view
from pointseg.images.readers.frame import ImagesError
from pointseg.images.visibility import VisibilityConfig
from tests.pointseg.images.given import SIZE, frame, scene, shifted, wall

ALL = VisibilityConfig()


def test_positions_by_hand_in_the_pixels_of_the_size_asked_for() -> None:
    found = compute_visibility(wall(), [frame(), frame(shifted(0, 0, 2))], ALL, (80, 60))
    u, v = np.meshgrid([15, 30, 45], [10, 40, 70])  # twice as high
    assert found["image_coord"].dtype == np.float32
    assert found["image_coord"][:, 0].tolist() == np.stack([u.ravel(), v.ravel()], 1).tolist()
    u, v = np.meshgrid([22.5, 30, 37.5], [25, 40, 55])  # twice as far away
    assert found["image_coord"][:, 1].tolist() == np.stack([u.ravel(), v.ravel()], 1).tolist()
    assert found["image_mask"].all() and found["image_mask"].shape == (9, 2)


def test_only_what_lies_in_the_image_and_ahead_is_visible() -> None:
    # On the left edge, on the right edge (outside), behind, above, far right.
    points = scene([[-2, 0, 2], [2, 0, 2], [0, 0, -2], [0, -2, 2], [9, 0, 2], [0, 0, 0]])
    found = compute_visibility(points, [frame()], ALL, SIZE)
    assert found["image_mask"][:, 0].tolist() == [True] + [False] * 5
    assert found["image_coord"][0, 0].tolist() == [0, 20] and not found["image_coord"][1:].any()


@dataclass(frozen=True)
class Stated:
    """A projection that the dataset states: three points to the left of, in and below the image."""

    seen: tuple[bool, ...] = (True, True, True)

    def read(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        assert count == 3
        return np.array([[-1, 10], [30, 20], [30, 40]], np.float32), np.array(self.seen)


def test_what_the_dataset_states_is_taken_instead_of_the_cameras_projection() -> None:
    """In images of 60 x 40, shown here at twice the width; range and occlusion do not matter."""
    points, rule = scene([[0, 0, 9], [0, 0, 9], [0, 0, 9]]), VisibilityConfig(far_m=1)
    for given, expected in (
        (Stated(), [False, True, False]),
        (Stated((True, False, True)), [False] * 3),
    ):
        view = pickle.loads(pickle.dumps(replace(frame(), projection=given)))
        found = compute_visibility(points, [view], rule, (40, 120), allow_none_visible=True)
        assert found["image_mask"][:, 0].tolist() == expected
        assert found["image_coord"][1, 0].tolist() == ([60, 20] if any(expected) else [0, 0])


def test_ranges_are_exclusive() -> None:
    points = scene([[0, 0, 1], [0, 0, 1.5], [0, 0, 4], [0, 0, 5]])
    found = compute_visibility(points, [frame()], VisibilityConfig(near_m=1, far_m=4), SIZE)
    assert found["image_mask"][:, 0].tolist() == [False, True, False, False]


def test_depth_maps_hide_what_is_not_there_of_any_size_and_where_they_know_nothing() -> None:
    depth = np.full((20, 30), 2.0)
    depth[:, 20:] = 1.7  # something stands before the right column
    depth[:7] = 0  # and nothing is known of the upper row
    found = compute_visibility(wall(), [frame(depth=depth)], ALL, SIZE)["image_mask"][:, 0].reshape(
        3, 3
    )
    assert found.tolist() == [[False] * 3, [True, True, False], [True, True, False]]
    wide = compute_visibility(
        wall(), [frame(depth=depth)], VisibilityConfig(depth_tolerance_m=0.31), SIZE
    )["image_mask"]
    assert wide[:, 0].reshape(3, 3)[1:].all()
    ignored = compute_visibility(
        wall(), [frame(depth=depth)], VisibilityConfig(occlusion="none"), SIZE
    )
    assert ignored["image_mask"].all()


def test_the_cloud_hides_itself_where_a_z_buffer_is_asked_for() -> None:
    x, y = np.meshgrid(np.linspace(-1, 1, 41), np.linspace(-1, 1, 41))
    near = np.stack([x.ravel() / 4, y.ravel() / 4, np.full(x.size, 1.0)], 1)
    far = np.stack([x.ravel(), y.ravel(), np.full(x.size, 3.0)], 1)
    points = scene(np.concatenate([near, far]))
    behind = slice(len(near), None)
    reach = np.abs(far[:, :2]).max(1)  # the near wall covers 0.75 m of the far one
    found = compute_visibility(points, [frame()], VisibilityConfig(occlusion="z-buffer"), SIZE)[
        "image_mask"
    ][:, 0]
    assert found[: len(near)].all()
    assert not found[behind][reach < 0.7].any() and found[behind][reach > 0.81].mean() > 0.9
    assert compute_visibility(points, [frame()], ALL, SIZE)[
        "image_mask"
    ].all()  # no depth map, no test


def test_the_origin_is_part_of_the_world_and_millimetres_survive_it() -> None:
    origin = np.array([4_500_000.0, 5_400_000.0, 300.0])
    here = wall()
    there = replace(here, origin=origin)
    moved = frame(shifted(*-origin))
    one, two = (
        compute_visibility(here, [frame()], ALL, SIZE),
        compute_visibility(there, [moved], ALL, SIZE),
    )
    assert two["image_coord"] == pytest.approx(one["image_coord"], abs=1e-4)
    assert two["image_mask"].all()


def test_positions_travel_with_their_points() -> None:
    found = compute_visibility(wall(), [frame()], ALL, SIZE).select(np.array([4, 4, 0]))
    assert found["image_coord"][:, 0].tolist() == [[30, 20], [30, 20], [15, 5]]


def test_large_clouds_go_in_pieces_and_fast() -> None:
    rng = np.random.default_rng(0)
    points = scene(rng.uniform([-1, -1, 1], [1, 1, 3], (CHUNK + 1000, 3)))
    start = time.perf_counter()
    found = compute_visibility(points, [frame()] * 4, ALL, SIZE)
    assert time.perf_counter() - start < 5
    some = compute_visibility(
        points.select(np.arange(CHUNK - 5, CHUNK + 5)), [frame()] * 4, ALL, SIZE
    )
    assert (found["image_coord"][CHUNK - 5 : CHUNK + 5] == some["image_coord"]).all()


def test_rounding_does_not_move_points_onto_the_edge() -> None:
    below = np.nextafter(np.float32(2), np.float32(0))  # in float64 just inside the image
    found = compute_visibility(scene([[below, 0, 2], [0, 0, 2]]), [frame()], ALL, SIZE)
    assert (found["image_coord"][found["image_mask"]] < [60, 40]).all()


def test_no_points_are_no_error() -> None:
    assert compute_visibility(scene([]), [frame()], ALL, SIZE)["image_mask"].shape == (0, 1)


@pytest.mark.parametrize(
    ("frames", "rule", "message"),
    [
        ([], ALL, "has no images"),
        ([frame(shifted(0, 0, -4))], ALL, "100.0% lie inside with inverted poses"),
        ([frame(shifted(0, 0, 4000))], VisibilityConfig(far_m=100), "near_m, far_m"),
        ([frame(shifted(9000, 0, 0))], ALL, "the nearest camera is 9000 m from"),
        ([frame(np.diag([1.0, -1, -1, 1]))], ALL, "0.0% lie in front of the cameras"),
        ([frame(depth=np.full(SIZE, 1.0))], ALL, "depth_tolerance_m"),
        ([frame(), frame()], VisibilityConfig(far_m=1), "none between 0 m and 1 m"),
        ([frame()], VisibilityConfig(near_m=3), "none between 3 m and any distance"),
    ],
)  # fmt: skip
def test_why_nothing_is_seen_is_an_error_unless_it_is_allowed(frames, rule, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ImagesError) as error:
        compute_visibility(wall(), frames, rule, SIZE)
    assert str(error.value).startswith("scene room: ") and message in str(error.value)
    found = compute_visibility(wall(), frames, rule, SIZE, allow_none_visible=True)
    assert found["image_mask"].shape == (9, len(frames)) and not found["image_mask"].any()


@pytest.mark.parametrize(("factor", "hint"), [(1000, "of 1000"), (0.001, "of 1000"), (0.08, None)])
def test_depths_in_another_unit_are_refused_even_among_good_views(
    factor: float, hint: str | None
) -> None:
    bad = frame(depth=np.full(SIZE, 2.0 * factor), name="bad")
    if hint is None:  # merely wrong: nothing is visible there
        assert compute_visibility(wall(), [bad, frame()], ALL, SIZE)["image_mask"].any(
            0
        ).tolist() == [False, True]
        return
    with pytest.raises(ImagesError, match=f"bad_depth.png: .*{hint}.*depth_scale"):
        compute_visibility(wall(), [bad, frame()], ALL, SIZE, allow_none_visible=True)


def test_walls_and_stray_points_are_no_other_unit() -> None:
    """A wall before the camera that is not in the cloud; a point almost at the camera."""
    close = frame(depth=np.full(SIZE, 0.5))
    assert not compute_visibility(wall(60), [close], ALL, SIZE, allow_none_visible=True)[
        "image_mask"
    ].any()
    stray = scene([[0, 0, 0.004], [90, 0, 1]])
    assert not compute_visibility(
        stray, [frame(depth=np.full(SIZE, 5))], ALL, SIZE, allow_none_visible=True
    )["image_mask"].any()


def test_an_empty_depth_map_is_no_other_unit() -> None:
    camera = frame().camera
    assert depth_problem(camera, torch.zeros(SIZE), torch.tensor([[0.0, 0, 2]])) == ""


def test_points_in_millimetres_may_be_what_is_in_another_unit() -> None:
    camera, far = frame().camera, torch.tensor([[0.0, 0, 2000]])
    assert "--unit millimetre" in depth_problem(camera, torch.full(SIZE, 2.0), far)
    assert "--unit" not in depth_problem(camera, torch.full(SIZE, 2000.0), far / 1000)


@pytest.mark.parametrize(
    ("key", "value"),
    [("near_m", -1.0), ("far_m", 0.0), ("depth_tolerance_m", 0.0), ("occlusion", "depths")],
)
def test_values_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(UserError, match=f"'{key}'"):
        VisibilityConfig(**{key: value})


def test_visibility_of_another_configuration() -> None:
    other = ImageConfig(views=3, size=(32, 32), visibility=VisibilityConfig(near_m=1, far_m=4))
    found = ImageConfig().with_visibility_of(other)
    assert (found.views, found.size, found.visibility) == (3, (480, 640), other.visibility)
    assert found.visibility.far == 4 and ALL.far == float("inf")
    assert found.viewing_as_dict() == {
        "size": [480, 640], "views": 3, "near_m": 1, "far_m": 4, "depth_tolerance_m": 0.2, "occlusion": "depth",
    }  # fmt: skip
    assert "up to 3 images of 480 x 640 pixels; points 1 to 4 m away" in found.viewing_in_words()


def test_frames_that_look_elsewhere_can_be_left_out() -> None:
    frames = [frame(shifted(9, 0, 0)), frame(), frame(shifted(0, 0, -9)), frame(shifted(1, 0, 0))]
    assert frames_in_view(wall(), frames) == (1, 3)
    assert frames_in_view(replace(wall(), origin=np.array([-9.0, 0, 0])), frames) == (0,)
    assert frames_in_view(scene([]), frames) == ()


def test_pools_are_evenly_spread_over_frames_that_show_something() -> None:
    frames = [frame(shifted(9, 0, 0)), *(frame(shifted(k / 10, 0, 0)) for k in range(5))]
    assert (
        candidate_frames(wall(), frames, None)
        == candidate_frames(wall(), frames, 6)
        == tuple(frames)
    )
    assert candidate_frames(wall(), frames, 2) == (frames[1], frames[3])
    assert (
        candidate_frames(wall(), frames[:1] * 3, 2) == (frames[0],) * 2
    )  # there is no better choice


def test_frames_go_to_other_processes() -> None:
    one = frame(depth=np.full(SIZE, 2.0))
    bent = Lens(fisheye=True, radial=(0.1,))
    one = replace(one, camera=replace(one.camera, distortion=bent))
    data = bytes(ForkingPickler.dumps(one))
    assert b"rebuild" not in data  # no tensors, which would go as open files
    two = pickle.loads(data)
    assert two.camera.distortion == bent
    assert two.name == one.name and torch.equal(two.camera.intrinsics, one.camera.intrinsics)
    assert compute_visibility(wall(), [two], ALL, SIZE)["image_mask"].all()
