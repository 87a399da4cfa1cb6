"""A stack of slices: where voxels lie in the images, neighbours as channels, and back."""

from __future__ import annotations

import pytest
import torch

from dinomed3d.lifting import SliceStack, stack_slices, unstack_slices


def stack(**changes):
    """Three slices of 2 x 4 voxels, enlarged three times along y and twice along x."""
    sizes = dict(depth=3, height=2, width=4, image_height=6, image_width=8)
    return SliceStack(**(sizes | changes))


def test_projection_by_hand():
    points = torch.tensor([[1.0, 0, 0], [1, 1, 3], [1, 0.5, -0.5], [1.2, 0, 0]])
    uv, visible, distance = stack().project(1, points)
    # (x + 0.5) * 2, (y + 0.5) * 3
    torch.testing.assert_close(uv, torch.tensor([[1.0, 1.5], [7, 4.5], [0, 3], [1, 1.5]]))
    assert visible.tolist() == [True] * 4
    torch.testing.assert_close(distance, torch.tensor([0, 0, 0, 0.2]))


@pytest.mark.parametrize(
    ("zyx", "view"),
    [
        ((0, 0, 0), 0),
        ((0.49, 0, 0), 0),
        ((0.5, 0, 0), 1),  # of two equally near slices the upper one
        ((1.5, 0, 0), 2),
        ((-0.5, 0, 0), 0),  # the volume begins half a voxel before its first slice
        ((-0.51, 0, 0), None),
        ((2.49, 0, 0), 2),
        ((2.5, 0, 0), None),
        ((1, -0.5, -0.5), 1),
        ((1, -0.51, 0), None),
        ((1, 1.5, 0), None),
        ((1, 0, 3.49), 1),
        ((1, 0, 3.5), None),
        ((float("nan"), 0, 0), None),
        ((1, float("nan"), 0), None),
    ],
)
def test_a_site_is_seen_by_its_nearest_slice_alone(zyx, view):
    seen = [v for v in range(3) if stack().project(v, torch.tensor([zyx]))[1].item()]
    assert seen == ([] if view is None else [view])


def test_every_voxel_is_seen_once():
    slices = stack()
    points = slices.voxel_centres()
    seen = sum(slices.project(view, points)[1].long() for view in range(len(slices)))
    assert seen.tolist() == [1] * (3 * 2 * 4)


def test_voxel_centres_lie_in_memory_order():
    z, y, x = stack().voxel_centres().view(3, 2, 4, 3).unbind(-1)
    assert z[:, 0, 0].tolist() == [0, 1, 2]
    assert y[0, :, 0].tolist() == [0, 1]
    assert x[0, 0].tolist() == [0, 1, 2, 3]


def test_token_centres_by_hand():
    # Images of 6 x 8 pixels in cells of 2: 3 x 4 cells over 2 x 4 voxels.
    z, y, x = stack().token_centres(2).view(3, 3, 4, 3).unbind(-1)
    assert z[:, 0, 0].tolist() == [0, 1, 2]
    torch.testing.assert_close(y[0, :, 0], torch.tensor([-1 / 6, 0.5, 7 / 6]))
    torch.testing.assert_close(x[0, 0], torch.tensor([0.0, 1, 2, 3]))


def test_token_centres_project_to_the_centres_of_their_cells():
    slices = stack(image_height=32, image_width=48)
    uv = slices.project(0, slices.token_centres(16)[:6])[0]
    wanted = torch.tensor([[8.0, 8], [24, 8], [40, 8], [8, 24], [24, 24], [40, 24]])
    torch.testing.assert_close(uv, wanted)


@pytest.mark.parametrize("stride", [4, 5, 16])
def test_cells_that_do_not_tile_the_image_are_refused(stride):
    with pytest.raises(ValueError, match=rf"'stride' must divide the image of 6 x 8.*got {stride}"):
        stack().token_centres(stride)


@pytest.mark.parametrize("name", ["depth", "height", "width", "image_height", "image_width"])
def test_a_stack_of_nothing_is_refused(name):
    with pytest.raises(ValueError, match=f"'{name}' must be at least 1, got 0"):
        stack(**{name: 0})


def test_neighbours_by_hand():
    volume = torch.tensor([10.0, 20, 30]).view(1, 1, 3, 1, 1)
    stacked = stack_slices(volume, slices=3)
    assert stacked.view(3, 3).tolist() == [[10, 10, 20], [10, 20, 30], [20, 30, 30]]
    stacked = stack_slices(volume, slices=5)
    assert stacked.view(3, 5).tolist() == [
        [10, 10, 10, 20, 30],
        [10, 10, 20, 30, 30],
        [10, 20, 30, 30, 30],
    ]


def test_a_halo_gives_the_ends_their_true_neighbours():
    volume = torch.tensor([10.0, 20, 30, 40]).view(1, 1, 4, 1, 1)
    stacked = stack_slices(volume, slices=3, halo=(1, 1))
    assert stacked.view(2, 3).tolist() == [[10, 20, 30], [20, 30, 40]]
    stacked = stack_slices(volume, slices=3, halo=(0, 2))
    assert stacked.view(2, 3).tolist() == [[10, 10, 20], [10, 20, 30]]
    stacked = stack_slices(volume, slices=5, halo=(1, 0))  # one neighbour is there, two are wanted
    assert stacked.view(3, 5)[0].tolist() == [10, 10, 20, 30, 40]


@pytest.mark.parametrize("halo", [(2, 2), (-1, 0), (0, 4)])
def test_a_halo_that_leaves_no_slice_is_refused(halo):
    with pytest.raises(ValueError, match="'halo' must leave some of 4 slices"):
        stack_slices(torch.zeros(1, 1, 4, 2, 2), slices=3, halo=halo)


def test_neighbours_of_several_modalities_and_volumes():
    # Volume 0 holds 0 1 | 10 11, volume 1 holds 100 101 | 110 111: two modalities, two slices.
    volume = torch.tensor([[[0.0, 1], [10, 11]], [[100, 101], [110, 111]]]).view(2, 2, 2, 1, 1)
    stacked = stack_slices(volume, slices=3)
    assert stacked.view(4, 6).tolist() == [
        [0, 10, 0, 10, 1, 11],  # slices outside, modalities inside
        [0, 10, 1, 11, 1, 11],
        [100, 110, 100, 110, 101, 111],
        [100, 110, 101, 111, 101, 111],
    ]


def test_more_neighbours_than_slices():
    stacked = stack_slices(torch.full((1, 2, 1, 3, 4), 7.0), slices=7)
    assert stacked.shape == (1, 14, 3, 4) and bool((stacked == 7).all())


@pytest.mark.parametrize("slices", [0, 2, -1, 4])
def test_an_even_number_of_slices_is_refused(slices):
    with pytest.raises(ValueError, match=rf"'slices' \(K\) must be odd .*got {slices}"):
        stack_slices(torch.zeros(1, 1, 2, 2, 2), slices=slices)


def test_unstacking_one_slice_each_gives_the_volume_back():
    volume = torch.randn(2, 3, 4, 5, 6)
    assert torch.equal(unstack_slices(stack_slices(volume, slices=1), depth=4), volume)


def test_the_middle_of_every_stack_is_the_volume():
    volume = torch.randn(2, 3, 4, 5, 6)
    middle = unstack_slices(stack_slices(volume, slices=5), depth=4)[:, 6:9]
    assert torch.equal(middle, volume)
