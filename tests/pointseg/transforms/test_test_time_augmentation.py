"""Test-time variants of a scene."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.transforms import TTA_SETS, TTAVariant
from tests.pointseg.transforms.rooms import check_fields_stayed_together, room


def test_by_hand():
    whole = room()
    made = TTAVariant(rotation_z_deg=90, scale=2, flip_x=True).apply(whole)
    x, y, z = whole.coord.T
    np.testing.assert_array_equal(made.coord, np.stack([2 * y, 2 * x, 2 * z], axis=1))
    nx, ny, nz = whole["normal"].T
    np.testing.assert_array_equal(made["normal"], np.stack([ny, nx, nz], axis=1))
    check_fields_stayed_together(made, whole)


def test_sets_are_those_of_the_papers():
    sizes = {name: len(augmentations) for name, augmentations in TTA_SETS.items()}
    assert sizes == {"single": 1, "scannet": 13, "s3dis": 10, "nuscenes": 10, "semantickitti": 4}
    for augmentations in TTA_SETS.values():
        assert len(set(augmentations)) == len(augmentations)
        assert TTAVariant() in augmentations
    *turned, last = TTA_SETS["scannet"]
    assert {(t.rotation_z_deg, t.scale) for t in turned} == {
        (r, s) for r in (0, 90, 180, 270) for s in (0.95, 1, 1.05)
    }
    assert last == TTAVariant(flip_x=True, flip_y=True)
    for name in ("s3dis", "nuscenes"):
        assert {(t.scale, t.flip_x, t.flip_y) for t in TTA_SETS[name]} == {
            (s, both, both) for s in (0.9, 0.95, 1, 1.05, 1.1) for both in (False, True)
        }
    assert [t.rotation_z_deg for t in TTA_SETS["semantickitti"]] == [0, 90, 180, 270]


def test_a_single_pass_changes_nothing():
    whole = room()
    assert TTA_SETS["single"][0].apply(whole) is whole


@pytest.mark.parametrize("name", TTA_SETS)
def test_distances_are_kept_up_to_the_scale(name):
    whole = room(50)
    apart = np.linalg.norm(whole.coord[:, None] - whole.coord, axis=2)
    for augmentation in TTA_SETS[name]:
        coord = augmentation.apply(whole).coord
        now = np.linalg.norm(coord[:, None] - coord, axis=2)
        np.testing.assert_allclose(now, apart * augmentation.scale, atol=1e-5)


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ValueError, match="'scale'"):
        TTAVariant(scale=0)
