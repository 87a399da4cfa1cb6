"""Resampling of tokens to a level's grid, against numbers worked by hand."""

import pytest
import torch

from dinomed3d.networks.resample import axis_weights, resample


@pytest.mark.parametrize(
    ("cells", "cell", "level_cells", "level_cell", "expected"),
    [
        (3, 4, 3, 4, [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),  # the same grid
        # centres of cells of 2 voxels at 1, 3, 5, 7; of tokens of 4 at 2 and 6
        (2, 4, 4, 2, [[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]]),
        # a cell of 4 voxels covers two tokens of 2, and touches one more on each inner side
        (4, 2, 2, 4, [[3 / 7, 3 / 7, 1 / 7, 0], [0, 1 / 7, 3 / 7, 3 / 7]]),
        # the level is longer than the tokens reach (padding): the end is repeated
        (2, 1, 4, 1, [[1, 0], [0, 1], [0, 1], [0, 1]]),
    ],
)
def test_weights_by_hand(cells, cell, level_cells, level_cell, expected):
    found = axis_weights(cells, cell, level_cells, level_cell)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))


def test_every_axis_uses_its_own_sizes():
    """A ramp along one axis stays a ramp there and constant along the others."""
    for axis in range(3):
        ramp = torch.arange(6.0).reshape([-1 if a == axis else 1 for a in range(3)])
        tokens = ramp.expand(6, 6, 6)[None, None]
        found = resample(tokens, cell=(1, 4, 8), size=(6, 12, 24), level_cell=(1, 2, 2))[0, 0]
        factor = (1, 2, 4)[axis]
        line = ((torch.arange(6 * factor) + 0.5) / factor - 0.5).clamp(0, 5)
        expected = line.reshape([-1 if a == axis else 1 for a in range(3)]).expand(6, 12, 24)
        torch.testing.assert_close(found, expected)


def test_a_constant_stays_and_precision_is_kept():
    tokens = torch.full((1, 2, 3, 4, 5), 2.0, dtype=torch.bfloat16)
    found = resample(tokens, cell=(3, 8, 8), size=(9, 8, 10), level_cell=(1, 4, 4))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, torch.full((1, 2, 9, 8, 10), 2.0, dtype=torch.bfloat16))
