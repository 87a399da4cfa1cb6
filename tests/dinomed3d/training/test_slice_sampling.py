"""Stage I's slices: which are drawn, and that input and target belong together."""

import pytest
import torch

from dinomed3d.lifting import stack_slices
from dinomed3d.training.slice_sampling import draw_slices, foreground, slice_batch


def target_with_foreground(*slices: int) -> torch.Tensor:
    target = torch.zeros(2, 5, 4, 4)
    for number in slices:
        target[number // 5, number % 5, 1, 2] = 2
    return target > 0


def test_foreground_slices_are_favoured():
    chosen = draw_slices(target_with_foreground(1, 4, 7), count=4, foreground_share=0.5)
    assert len(set(chosen.tolist())) == 4
    assert len({1, 4, 7} & set(chosen.tolist())) >= 2
    only = draw_slices(target_with_foreground(1, 4, 7), count=3, foreground_share=1.0)
    assert set(only.tolist()) == {1, 4, 7}


def test_without_foreground_any_slice_is_drawn_and_never_twice():
    chosen = draw_slices(target_with_foreground(), count=50, foreground_share=0.9)
    assert sorted(chosen.tolist()) == list(range(10))


def test_what_is_ignored_is_no_foreground():
    labels = torch.tensor([0.0, 1.0, 2.0, 3.0]).view(1, 1, 4)
    assert foreground(labels, ignore_label=None, regions=False).tolist() == [
        [False, True, True, True]
    ]
    assert foreground(labels, ignore_label=3, regions=False).tolist() == [
        [False, True, True, False]
    ]
    regions = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]]])  # last: ignored
    assert foreground(regions, ignore_label=3, regions=True).tolist() == [[False, True, False]]
    assert foreground(regions, ignore_label=None, regions=True).tolist() == [[False, True, True]]


def test_input_and_target_belong_together():
    volume = torch.arange(10.0).view(2, 1, 5, 1, 1).expand(2, 1, 5, 4, 4)
    target = volume + 100
    chosen = draw_slices(target[:, 0] > 0, count=6, foreground_share=0.0)
    stacks, truth = slice_batch(volume, target, chosen, slices=3)
    assert stacks.shape == (6, 3, 4, 4) and truth.shape == (6, 1, 4, 4)
    assert torch.equal(truth[:, 0], stacks[:, 1] + 100)  # the centre slice is the one labelled
    number = stacks[:, 1, 0, 0]
    previous = torch.where(number % 5 == 0, number, number - 1)  # ends repeat
    assert torch.equal(stacks[:, 0, 0, 0], previous)


def test_images_are_slices_of_their_own():
    image, target = torch.rand(3, 2, 4, 6), torch.zeros(3, 1, 4, 6)
    chosen = draw_slices(target[:, 0] > 0, count=9, foreground_share=0.5)
    stacks, truth = slice_batch(image, target, chosen, slices=1)
    assert stacks.shape == (3, 2, 4, 6) and truth.shape == (3, 1, 4, 6)


@pytest.mark.parametrize("slices", [1, 3, 5])
def test_chosen_slices_are_those_of_the_whole_stack(slices):
    volume, target = torch.randn(2, 3, 4, 5, 6), torch.arange(2 * 2 * 4 * 5 * 6).view(2, 2, 4, 5, 6)
    chosen = torch.tensor([7, 0, 4, 3])
    stacks, truth = slice_batch(volume, target, chosen, slices=slices)
    assert torch.equal(stacks, stack_slices(volume, slices=slices)[chosen])
    assert torch.equal(truth, target.transpose(1, 2).flatten(0, 1)[chosen])
