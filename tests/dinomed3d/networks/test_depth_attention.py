"""Attention along depth by hand, and what it sees."""

import math

import pytest
import torch
from torch import nn

from dinomed3d.networks.depth_attention import DepthAttention, heads_of, rotate_by_position


def test_rotation_by_hand():
    """Two pairs: the first turns by one radian a slice, the second ten times as slowly."""
    x = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    found = rotate_by_position(x, torch.tensor([0, 2]))
    assert found[0].tolist() == [1, 1, 0, 0]
    assert found[1].tolist() == pytest.approx(
        [math.cos(2), math.cos(0.2), math.sin(2), math.sin(0.2)]
    )


def test_products_depend_on_the_distance_alone():
    q, k = torch.randn(2, 5, 8)
    here, there = torch.arange(5), torch.arange(5) + 7.0
    products = [rotate_by_position(q, p) @ rotate_by_position(k, p).T for p in (here, there)]
    torch.testing.assert_close(*products, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(products[0], q @ k.T, atol=0.1)


def attention():
    """Of the norm's first channel s: query and key (s, 0), value (s, 3 s); the update adds both."""
    built = DepthAttention(2, width=2)
    built.norm.eps = 0.0
    with torch.no_grad():
        built.qkv.weight.copy_(torch.tensor([[1.0, 0], [0, 0], [1, 0], [0, 0], [1, 0], [3, 0]]))
        built.qkv.bias.zero_()
        built.up.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, -1.0]]))
        built.up.bias.copy_(torch.tensor([0.25, 0.0]))
    return built


def test_two_slices_by_hand():
    """One patch, s = 1 in the first slice and -1 in the second, so values (1, 3) and (-1, -3)."""
    tokens = torch.tensor([[[5.0, 5.5], [9, 1]], [[5.0, 5.5], [2, 6]]])  # a prefix token, a patch
    found = attention()(tokens, depth=2, grid=(1, 1))
    # scores / sqrt(2): with itself s * s = 1, with the other s * -s * cos(one slice)
    self_, other = math.exp(1 / math.sqrt(2)), math.exp(-math.cos(1) / math.sqrt(2))
    share = (self_ - other) / (self_ + other)  # mixed value: share * (1, 3) in the first slice
    assert found[:, 0].tolist() == [[0, 0], [0, 0]]
    assert found[0, 1].tolist() == pytest.approx([4 * share + 0.25, -3 * share])
    assert found[1, 1].tolist() == pytest.approx([-4 * share + 0.25, 3 * share])


def awake(channels=6, width=4):
    torch.manual_seed(0)
    built = DepthAttention(channels, width=width)
    nn.init.normal_(built.up.weight)
    nn.init.normal_(built.qkv.weight)
    return built


def test_a_patch_sees_its_own_place_in_all_slices_of_its_window():
    built = awake()
    tokens = torch.randn(6, 3 + 4, 6)  # two windows of three slices, two by two patches
    changed = tokens.clone()
    changed[1, 3 + 2] += torch.randn(6)  # second slice of the first window, third patch
    moved = (built(tokens, depth=3, grid=(2, 2)) - built(changed, depth=3, grid=(2, 2))).abs()
    expected = torch.zeros(6, 7, dtype=torch.bool)
    expected[:3, 3 + 2] = True
    assert torch.equal(moved.amax(-1) > 1e-6, expected)


def test_the_order_of_slices_matters():
    """Without positions the result of shuffled slices would be the shuffled result."""
    built, tokens = awake(), torch.randn(5, 4, 6)
    order = torch.tensor([3, 0, 4, 1, 2])
    straight = built(tokens, depth=5, grid=(2, 2))
    shuffled = built(tokens[order], depth=5, grid=(2, 2))
    assert not torch.allclose(shuffled, straight[order], atol=1e-2)
    turned = built(tokens.flip(0), depth=5, grid=(2, 2))  # rotations know the direction, too
    assert not torch.allclose(turned.flip(0), straight, atol=1e-2)


def test_a_volume_of_equal_slices_has_equal_updates_and_the_depth_does_not_matter():
    built, one = awake(), torch.randn(1, 5, 6)
    for depth in (1, 4, 7):
        found = built(one.expand(depth, 5, 6), depth=depth, grid=(2, 2))
        torch.testing.assert_close(found, built(one, depth=1, grid=(2, 2)).expand_as(found))


def test_it_begins_as_nothing():
    assert not DepthAttention(6, width=4)(torch.randn(3, 5, 6), depth=3, grid=(2, 2)).any()


@pytest.mark.parametrize(
    ("width", "heads"), [(2, 1), (14, 1), (16, 1), (32, 2), (64, 4), (168, 7), (34, 1)]
)
def test_heads_by_hand(width, heads):
    assert heads_of(width) == DepthAttention(8, width=width).heads == heads


@pytest.mark.parametrize("width", [0, 3])
def test_an_odd_width_is_refused(width):
    with pytest.raises(ValueError, match=f"'width' must be even and positive, got {width}"):
        DepthAttention(6, width=width)
