"""The region of a coarse mask by hand, and volumes that are predicted in a region alone."""

import numpy as np
import pytest
import torch

from dinomed3d.inference.nnunet.preprocess import Prepared
from dinomed3d.inference.nnunet.region import Region, find_region, on_network_grid
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, predict_windows


def spans(box):
    return [(span.start, span.stop) for span in box]


def test_margins_are_rounded_up_to_voxels_and_clipped_at_the_volume():
    mask = np.zeros((10, 12, 9), np.uint8)
    mask[4:6, 1, 8] = 3
    region = find_region(mask, (2.0, 0.5, 3.0), margin_mm=3)
    # 3 mm are 2, 6 and 1 voxels
    assert spans(region.box) == [(2, 8), (0, 8), (7, 9)]
    assert region.share == pytest.approx(6 * 8 * 2 / mask.size)
    assert spans(find_region(mask, (2.0, 0.5, 3.0), margin_mm=0).box) == [(4, 6), (1, 2), (8, 9)]
    assert find_region(np.zeros_like(mask), (1, 1, 1), margin_mm=3) is None


@pytest.mark.parametrize(
    ("place", "reached"),
    [
        ((2, 5, 5), True),
        ((7, 5, 5), True),
        ((4, 0, 5), False),
        ((4, 5, 8), False),
        ((1, 5, 5), False),
    ],
)
def test_a_mask_reaches_only_sides_within_the_volume(place, reached):
    region = Region(box=(slice(2, 8), slice(0, 8), slice(3, 9)), shape=(10, 12, 9))
    mask = np.zeros((10, 12, 9), np.uint8)
    mask[place] = 1
    assert region.is_reached(mask) is reached


def prepared(grid, shape, crop):
    box = tuple(slice(a, b) for a, b in crop)
    return Prepared(
        data=torch.zeros((1, *grid)),
        shape=shape,
        box=box,
        spacing_mm=(1.0, 1.0, 1.0),
        network_spacing_mm=(2.0, 1.0, 0.5),
    )


def test_the_grid_points_around_every_voxel_of_the_box_are_kept():
    # half as many points along z: voxels 2 and 5 have their centres at points 0.75 and 2.25; the crop begins at
    # 3 along y, where the grid is the volume's own; twice as many along x: voxel 1 has its centre at 2.5
    volume = prepared((4, 5, 16), (8, 9, 8), [(0, 8), (3, 8), (0, 8)])
    box = (slice(2, 6), slice(1, 5), slice(1, 2))
    assert on_network_grid(box, volume, (0, 10, 0)) == ((0, 4), (10, 12), (2, 4))
    assert on_network_grid((slice(0, 8), slice(0, 3), slice(0, 8)), volume, (0, 0, 0)) is None


@pytest.mark.parametrize("patch", [(4, 6, 6), (6, 6)], ids=["3d", "2d"])
def test_logits_in_the_box_are_those_of_the_whole_volume(patch):
    torch.manual_seed(0)
    data, seen = torch.randn(1, 14, 20, 22), []

    def predict(batches):
        for windows, places, _ in batches:
            seen.extend(places)
            yield torch.cat([windows.cumsum(-1), -windows], 1)

    def logits(grid):
        seen.clear()
        chunks = predict_windows(data, grid, (0, 20), predict, heads=2, batch=3)
        return torch.cat([chunk.logits for chunk in chunks], 1), len(seen)

    grid = WindowGrid.over(data.shape[1:], patch, 0.5)
    whole, every = logits(grid)
    box = ((5, 8), (2, 9), (17, 20))
    part, some = logits(grid.within(box))
    inside = (slice(None), *(slice(*span) for span in box))
    assert some < every / 3
    assert part.shape == whole.shape and torch.equal(part[inside], whole[inside])
    assert not part[:, 0].any() and not part[:, :, :, 0].any()  # no window: background
    assert torch.equal(logits(grid.within(((0, 14), (0, 20), (0, 22))))[0], whole)
