"""The encoder on a volume: where an adapter stands, what a tap holds, in which order."""

import pytest
import torch
from torch import nn

from dinomed3d.networks.adapter import Adapter3D
from dinomed3d.networks.volume_encoder import VolumeEncoder


class TenTimes(Adapter3D):
    """An update of ten times the tokens it is given."""

    def __init__(self):
        nn.Module.__init__(self)

    def forward(self, tokens, *, depth, grid):
        return 10 * tokens


@pytest.fixture
def arithmetic(tiny_encoder, monkeypatch):
    """An encoder whose attention adds one and whose MLP squares; its tokens begin as ones."""
    monkeypatch.setattr(
        tiny_encoder, "embed", lambda images: (torch.ones(len(images), 5 + 4, 24), None)
    )
    monkeypatch.setattr(tiny_encoder, "attention_half", lambda _, tokens, rope: tokens + 1)
    monkeypatch.setattr(tiny_encoder, "mlp_half", lambda _, tokens: tokens**2)
    tiny_encoder.norm = False
    return tiny_encoder


def test_an_adapter_stands_between_attention_and_mlp(arithmetic):
    arithmetic.taps = (0,)
    encoder = VolumeEncoder(arithmetic, nn.ModuleList(TenTimes() for _ in range(4)))
    (tap,) = encoder(torch.zeros(3, 3, 32, 32), depth=3)
    # (1 + 1 + 10 * 2)²; before the attention it would give 144, after the MLP 44
    assert tap.shape == (1, 24, 3, 2, 2) and bool((tap == 484).all())


def test_taps_come_in_the_order_of_blocks(arithmetic):
    arithmetic.taps = (0, 1, 2)
    taps = VolumeEncoder(arithmetic, nn.ModuleList())(torch.zeros(2, 3, 32, 32), depth=2)
    assert [tap.unique().item() for tap in taps] == [4, 25, 676]


def test_taps_pass_the_final_norm_if_asked(arithmetic):
    arithmetic.taps = (0, 1)
    arithmetic.norm = True
    with torch.no_grad():
        arithmetic.vit.norm.weight.fill_(3.0)
        arithmetic.vit.norm.bias.fill_(0.5)
    arithmetic.embed = lambda images: (torch.tensor([0.0, 1.0]).repeat(len(images), 9, 12), None)
    taps = VolumeEncoder(arithmetic, nn.ModuleList())(torch.zeros(2, 3, 32, 32), depth=2)
    for tap in taps:  # two values as often each: the norm makes them -1 and 1
        torch.testing.assert_close(
            tap[0, :2, 0, 0, 0], torch.tensor([-2.5, 3.5]), atol=1e-4, rtol=0
        )


def test_prefix_tokens_are_no_part_of_a_tap_and_slices_stay_in_place(arithmetic):
    """Patch (i, j) of slice z of volume b holds 1000 b + 100 z + 10 i + j before the blocks."""
    b, z, i, j = torch.meshgrid(*map(torch.arange, (2, 3, 2, 2)), indexing="ij")
    values = (1000 * b + 100 * z + 10 * i + j).float()  # (B, D, h, w)
    patches = values.reshape(6, 4, 1).expand(6, 4, 24)
    arithmetic.embed = lambda images: (torch.cat([-torch.ones(6, 5, 24), patches], 1), None)
    arithmetic.mlp_half = lambda _, tokens: tokens
    arithmetic.taps = (0,)
    (tap,) = VolumeEncoder(arithmetic, nn.ModuleList())(torch.zeros(6, 3, 32, 32), depth=3)
    assert torch.equal(tap[:, 7], values + 1)


def test_a_wrong_number_of_adapters_is_refused(tiny_encoder):
    with pytest.raises(ValueError, match="2 adapters"):
        VolumeEncoder(tiny_encoder, nn.ModuleList(TenTimes() for _ in range(2)))
