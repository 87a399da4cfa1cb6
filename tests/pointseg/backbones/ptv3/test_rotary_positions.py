"""Rotary positions in space: by hand, by their property, and their random changes in training."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from pointseg.backbones.ptv3.rotary_positions import PositionJitter, RotaryPositions


def at(coord):
    coord = torch.tensor(coord, dtype=torch.float64)
    return SimpleNamespace(coord=coord, grid_coord=coord.long())


def test_by_hand():
    # 12 channels of one head: Q = 2, thirds of four channels, pairs (0, 2) and (1, 3); base 100: 1 and 0.1
    rope = RotaryPositions(12, 100, positions="coord")
    torch.testing.assert_close(rope.inv_freq, torch.tensor([1, 0.1]))
    qkv = torch.zeros(1, 36)
    qkv[0, 0] = 1  # query: x third, first pair
    qkv[0, 5] = 1  # query: y third, second pair
    qkv[0, 12 + 10] = 1  # key: z third, second of the first pair
    qkv[0, 24:] = torch.arange(12.0)  # values stay
    out = rope(qkv, 1, at([[0.5, 2.0, -1.0]]))[0]
    wanted = torch.zeros(24)
    wanted[0], wanted[2] = math.cos(0.5), math.sin(0.5)
    wanted[5], wanted[7] = math.cos(0.2), math.sin(0.2)
    wanted[12 + 8], wanted[12 + 10] = math.sin(1.0), math.cos(1.0)
    torch.testing.assert_close(out[:24], wanted)
    assert torch.equal(out[24:], qkv[0, 24:])


@pytest.mark.parametrize("positions", ["coord", "grid_coord"])
def test_scores_depend_on_differences_alone(positions):
    torch.manual_seed(0)
    rope = RotaryPositions(6, 10, positions=positions)
    qkv, places = torch.randn(5, 3 * 18), torch.randint(0, 9, (5, 3)).double()

    def scores(places):
        out = rope(qkv, 3, at(places.tolist())).view(5, 3, 3, 6)
        return torch.einsum("ihc,jhc->hij", out[:, 0], out[:, 1])

    torch.testing.assert_close(scores(places), scores(places + 4), rtol=0, atol=1e-5)
    assert not torch.allclose(scores(places), scores(places * 2), atol=0.1)


def test_the_type_of_queries_stays():
    rope = RotaryPositions(6, 10, positions="coord")
    assert (
        rope(torch.randn(2, 18).bfloat16(), 1, at([[1, 2, 3], [4, 5, 6]])).dtype is torch.bfloat16
    )


def test_what_is_saved():
    assert RotaryPositions(6, 10, positions="coord").state_dict() == {}
    saved = RotaryPositions(18, 10, positions="coord", saved=True).state_dict()
    torch.testing.assert_close(saved["inv_freq"], torch.tensor([1, 10 ** (-1 / 3), 10 ** (-2 / 3)]))


def test_changes_in_training_by_hand():
    places = torch.rand(4, 3)
    torch.manual_seed(3)
    changed = PositionJitter(shift=2.0, jitter=1.1, rescale=1.2)(places)
    torch.manual_seed(
        3
    )  # the same numbers, in the published order: shifts, factors of axes, one factor
    shift = torch.empty(3).uniform_(-2, 2)
    factors = torch.empty(3).uniform_(-math.log(1.1), math.log(1.1)).exp()
    factor = torch.empty(1).uniform_(-math.log(1.2), math.log(1.2)).exp()
    torch.testing.assert_close(changed, (places + shift) * factors * factor)
    assert torch.equal(PositionJitter(jitter=1.0, rescale=None)(places), places)


def test_changes_are_drawn_anew_and_only_in_training():
    rope = RotaryPositions(6, 10, positions="coord", jitter=PositionJitter(jitter=2.0))
    qkv, voxels = torch.randn(2, 18), at([[1, 2, 3], [4, 5, 6]])
    assert not torch.equal(rope(qkv, 1, voxels), rope(qkv, 1, voxels))
    rope.eval()
    assert torch.equal(rope(qkv, 1, voxels), rope(qkv, 1, voxels))


@pytest.mark.parametrize(("channels", "base"), [(9, 10), (16, 10), (6, 0), (6, -1), (6, math.nan)])
def test_what_is_refused(channels, base):
    with pytest.raises(ValueError, match="RotaryPositions: .*(per head|'base')"):
        RotaryPositions(channels, base, positions="coord")
