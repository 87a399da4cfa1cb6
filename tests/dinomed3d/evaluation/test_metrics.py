"""Scores worked by hand: cubes and boxes on grids of known spacing."""

from __future__ import annotations

import numpy as np
import pytest

from dinomed3d.evaluation.metrics import score

SHAPE = (12, 14, 40)


def box(z=4, y=4, x=4, *, side=4):
    mask = np.zeros(SHAPE, bool)
    mask[z : z + side, y : y + side, x : x + side] = True
    return mask


@pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (3, 1, 1), (3, 0.8, 0.5)])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_cubes_one_voxel_apart(axis, spacing_mm):
    shifted = box(**{"zyx"[axis]: 5})
    step_mm = spacing_mm[axis]
    # 4 x 4 x 4 voxels each, 48 of them in both; a face of 16 of the 56 surface voxels lies one step off
    near = score(box(), shifted, spacing_mm=spacing_mm, tolerance_mm=0.99 * step_mm)
    assert near.dice == pytest.approx(2 * 48 / 128)
    assert near.hd95_mm == pytest.approx(step_mm)
    assert 0.3 < near.surface_dice < 1
    assert score(box(), shifted, spacing_mm=spacing_mm, tolerance_mm=step_mm).surface_dice == 1


def test_a_second_box_far_away():
    reference = box(x=4)
    both = reference | box(x=30)
    found = score(reference, both, spacing_mm=(2, 1, 1), tolerance_mm=1)
    assert found.dice == pytest.approx(2 * 64 / 192)
    # all of one surface and half of the other lie on each other: (A + A) / (A + 2 A)
    assert found.surface_dice == pytest.approx(2 / 3)
    assert found.hd95_mm == pytest.approx(26, abs=0.5)  # half of the surface is about 26 voxels off


def test_the_same_mask_and_masks_far_apart():
    assert score(box(), box(), spacing_mm=(3, 1, 1), tolerance_mm=0) == (1, 0, 1)
    assert score(box(), box(x=30), spacing_mm=(3, 1, 1), tolerance_mm=1) == (0, 26, 0)


def test_empty_masks():
    empty = np.zeros(SHAPE, bool)
    np.testing.assert_equal(score(empty, empty, spacing_mm=(1, 1, 1), tolerance_mm=1), [np.nan] * 3)
    for one, other in ((box(), empty), (empty, box())):
        found = score(one, other, spacing_mm=(1, 1, 1), tolerance_mm=1)
        np.testing.assert_equal(found, [0.0, np.nan, 0.0])


def test_a_single_slice_is_compared_in_its_plane():
    flat, shifted = box()[4:5], box(x=5)[4:5]
    found = score(flat, shifted, spacing_mm=(999, 1, 0.5), tolerance_mm=0.5)
    assert found.dice == pytest.approx(2 * 12 / 32)
    assert found.hd95_mm == pytest.approx(0.5) and found.surface_dice == 1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_has_the_same_scores_whichever_way_it_lies(axis):
    rows, columns = np.mgrid[:40, :40]
    discs = [(rows - 20) ** 2 + (columns - x) ** 2 < 100 for x in (18, 21)]
    spacing_mm = list(np.insert([1.0, 2.0], axis, 7.0))
    found = score(*(np.expand_dims(d, axis) for d in discs), spacing_mm=spacing_mm, tolerance_mm=1)
    assert found == score(*discs, spacing_mm=[1.0, 2.0], tolerance_mm=1)
    assert found.hd95_mm == pytest.approx(6, abs=0.5)  # three pixels of 2 mm


def test_masks_at_the_border_of_the_volume():
    corner, shifted = box(z=0, y=0, x=0), box(z=0, y=0, x=1)
    found = score(corner, shifted, spacing_mm=(1, 1, 2), tolerance_mm=2)
    assert found == pytest.approx((0.75, 2, 1))


def test_masks_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="one grid"):
        score(box(), box()[:3], spacing_mm=(1, 1, 1), tolerance_mm=1)
