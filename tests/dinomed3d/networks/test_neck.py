"""The neck's projection by hand; its resampling is in test_resample."""

import pytest
import torch

from dinomed3d.networks.neck import Neck


def test_by_hand():
    """Two taps of one channel, a and b: 2 a - b, normalised over the volume, times 3 plus 1, then LeakyReLU."""
    neck = Neck(1, 2, 1, token=(1, 4, 4), level_cell=(1, 4, 4))
    with torch.no_grad():
        convolution, norm, _ = neck.project
        convolution.weight.copy_(torch.tensor([2.0, -1.0]).view(1, 2, 1, 1, 1))
        norm.weight.fill_(3)
        norm.bias.fill_(1)
        a, b = (torch.tensor(values).view(1, 1, 1, 1, 2) for values in ([0.0, 3.0], [2.0, 1.0]))
        found = neck([a, b], (1, 1, 2))  # -2 and 5, normalised -1 and 1
    assert found.flatten().tolist() == pytest.approx([-0.02, 4.0], abs=1e-4)


def test_tokens_of_several_slices_reach_a_finer_level():
    """A token of 3 slices and 4 x 4 voxels on a level of 1 slice and 2 x 2: centres two cells apart in plane."""
    neck = Neck(1, 1, 1, token=(3, 4, 4), level_cell=(1, 2, 2))
    neck.project = torch.nn.Identity()
    tokens = torch.tensor([[0.0], [3.0]]).view(1, 1, 2, 1, 1)
    found = neck([tokens], (6, 2, 2))
    assert found[0, 0, :, 0, 0].tolist() == pytest.approx([0.0, 0.0, 1.0, 2.0, 3.0, 3.0])
    assert torch.equal(found, found[..., :1, :1].expand_as(found))
