"""3D adapter by hand: one bottleneck channel, three slices of one row with two patches."""

import pytest
import torch
import torch.nn.functional as F

from dinomed3d.networks.adapter import Adapter3D

PREFIX = torch.tensor([[7.0, -3.0], [5.0, 4.0]])  # class token and one register
UP, DOWN = (9.0, 1.0), (2.0, 6.0)  # the norm makes them (1, -1) and (-1, 1)


def adapter(kernel=(1.0, 10.0, 100.0), bias=0.0):
    """Reads the first channel of the norm, mixes slices, and gives (2, -3) times it plus (0.5, 0)."""
    built = Adapter3D(2, width=1)
    with torch.no_grad():
        built.norm.eps = 0.0
        built.down.weight.copy_(torch.tensor([[1.0, 0.0]]))
        built.down.bias.zero_()
        built.mix.weight.copy_(torch.tensor(kernel).view(1, 1, 3, 1, 1))
        built.mix.bias.fill_(bias)
        built.up.weight.copy_(torch.tensor([[2.0], [-3.0]]))
        built.up.bias.copy_(torch.tensor([0.5, 0.0]))
    return built


def stack(*slices):
    """Tokens of slices, each with its prefix tokens before its patches."""
    return torch.stack([torch.cat([PREFIX, torch.tensor(patches)]) for patches in slices])


def update(*mixed):
    """The update that belongs to what the convolution gives, patch by patch."""
    gelu = F.gelu(torch.tensor(mixed))[..., None]
    patches = gelu * torch.tensor([2.0, -3.0]) + torch.tensor([0.5, 0.0])
    return F.pad(patches, (0, 0, len(PREFIX), 0))


def test_update_by_hand():
    tokens = stack([UP, UP], [DOWN, UP], [UP, DOWN])
    # first patch: 1, -1, 1 over depth; second: 1, 1, -1. Slices before, at, after weigh 1, 10, 100,
    # and beyond both ends the end slice counts again.
    expected = update((1.0 + 10 - 100, 1.0 + 10 + 100), (91.0, -89.0), (109.0, -109.0))
    found = adapter()(tokens, depth=3, grid=(1, 2))
    torch.testing.assert_close(found, expected)
    assert not found[:, :2].any()  # prefix tokens have no place in the volume


def test_a_negative_bottleneck_passes_a_gelu():
    found = adapter(kernel=(0.0, 1.0, 0.0))(stack([UP, DOWN]), depth=1, grid=(1, 2))
    assert found[0, 2].tolist() == pytest.approx([2 * 0.8413447 + 0.5, -3 * 0.8413447])
    assert found[0, 3].tolist() == pytest.approx([2 * -0.1586553 + 0.5, 3 * 0.1586553])


def test_depth_belongs_to_each_volume_and_rows_are_kept():
    """Two volumes of two slices, grid of two rows: no slice is mixed with one of another volume."""
    slices = [[UP, UP], [DOWN, UP], [UP, DOWN], [DOWN, DOWN]]
    across = adapter()(stack(*slices), depth=2, grid=(2, 1))
    torch.testing.assert_close(
        across,
        update((1.0 + 10 - 100, 111.0), (1.0 - 110, 111.0), (1.0 + 10 - 100, -111.0), (-109.0, -111.0)),
    )  # fmt: skip


def test_a_volume_of_equal_slices_has_equal_updates():
    """One rule of the end: what the embedding repeats, the adapter repeats."""
    torch.manual_seed(0)
    built = Adapter3D(6, width=4)
    torch.nn.init.normal_(built.up.weight)
    found = built(torch.randn(1, 5, 6).expand(4, 5, 6), depth=4, grid=(2, 2))
    torch.testing.assert_close(found, found[:1].expand_as(found))


def test_it_begins_as_nothing():
    assert not Adapter3D(6, width=4)(torch.randn(3, 5, 6), depth=3, grid=(2, 2)).any()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_it_equals_the_convolution_whose_weights_it_has(count, depth):
    """Forward and backward; every weight learns."""
    torch.manual_seed(0)
    built = Adapter3D(6, width=4)
    torch.nn.init.normal_(built.up.weight)
    tokens = torch.randn(count * depth, 1 + 6, 6, requires_grad=True)
    found = built(tokens, depth=depth, grid=(2, 3))
    x = built.down(built.norm(tokens[:, 1:])).unflatten(0, (count, depth))  # (B, D, N, width)
    volume = x.permute(0, 3, 1, 2)[..., None]  # (B, width, D, N, 1)
    mixed = built.mix(F.pad(volume, (0, 0, 0, 0, 1, 1), mode="replicate"))
    patches = built.up(F.gelu(mixed[..., 0].permute(0, 2, 3, 1))).flatten(0, 1)
    expected = F.pad(patches, (0, 0, 1, 0))
    torch.testing.assert_close(found, expected)
    learning = [tokens, *built.parameters()]
    for got, want in zip(
        torch.autograd.grad(found.square().sum(), learning),
        torch.autograd.grad(expected.square().sum(), learning),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
