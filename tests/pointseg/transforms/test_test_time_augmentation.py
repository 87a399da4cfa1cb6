"""Test-time variants of a scene."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.transforms import (
    KITTI_VIEWS,
    NUSCENES_VIEWS,
    S3DIS_VIEWS,
    SCANNET_VIEWS,
    SINGLE,
    VIEWS,
    TestView,
)
from tests.pointseg.transforms.rooms import check_fields_stayed_together, room


def test_by_hand():
    view = TestView(rotation_z_deg=90, scale=2, flip_x=True)
    whole = room()
    made = view.apply(whole)
    x, y, z = whole.coord.T
    np.testing.assert_array_equal(made.coord, np.stack([2 * y, 2 * x, 2 * z], axis=1))
    nx, ny, nz = whole["normal"].T
    np.testing.assert_array_equal(made["normal"], np.stack([ny, nx, nz], axis=1))
    check_fields_stayed_together(made, whole)


def test_sets_are_those_of_the_protocol():
    sizes = {name: len(views) for name, views in VIEWS.items()}
    assert sizes == {"single": 1, "scannet": 13, "s3dis": 10, "nuscenes": 10, "semantickitti": 4}
    for views in VIEWS.values():
        assert len(set(views)) == len(views) and TestView() in views
    turned = {(v.rotation_z_deg, v.scale) for v in SCANNET_VIEWS[:-1]}
    assert turned == {(r, s) for r in (0, 90, 180, 270) for s in (0.95, 1, 1.05)}
    assert SCANNET_VIEWS[-1] == TestView(flip_x=True, flip_y=True)
    for views in (S3DIS_VIEWS, NUSCENES_VIEWS):
        assert {(v.scale, v.flip_x, v.flip_y) for v in views} == {
            (s, both, both) for s in (0.9, 0.95, 1, 1.05, 1.1) for both in (False, True)
        }
    assert [v.rotation_z_deg for v in KITTI_VIEWS] == [0, 90, 180, 270]


def test_the_single_view_changes_nothing():
    whole = room()
    assert SINGLE[0].apply(whole) is whole


@pytest.mark.parametrize("views", [SCANNET_VIEWS, S3DIS_VIEWS, KITTI_VIEWS])
def test_views_keep_distances_up_to_their_scale(views):
    whole = room(50)
    apart = np.linalg.norm(whole.coord[:, None] - whole.coord, axis=2)
    for view in views:
        coord = view.apply(whole).coord
        now = np.linalg.norm(coord[:, None] - coord, axis=2)
        np.testing.assert_allclose(now, apart * view.scale, atol=1e-5)


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ValueError, match="'scale' must be above 0"):
        TestView(scale=0)
