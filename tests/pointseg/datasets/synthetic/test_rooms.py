"""What a scan of a generated room does not see."""

from dataclasses import replace

import numpy as np
import pytest

from pointseg.datasets.synthetic.dataset import Synthetic
from pointseg.datasets.synthetic.primitives import Panel
from pointseg.datasets.synthetic.rooms import _hidden


@pytest.mark.parametrize("name", ["room0000000", "room0000007"])
def test_points_inside_another_primitive_are_hidden_and_no_others(name: str) -> None:
    """Each primitive looks at points in its range of x alone; here every one looks at every point."""
    room = Synthetic().room("train", name)
    rng = np.random.default_rng(0)
    drawn = [primitive.shape.sample(300, rng) for primitive in room.primitives]
    coord = np.concatenate([points for points, _ in drawn])
    normal = np.concatenate([normals for _, normals in drawn])
    owner = np.repeat(np.arange(len(room.primitives)), 300)
    expected = _hidden(replace(room, primitives=()), coord, normal, owner)  # by floor and walls
    by_walls = expected.sum()
    for number, primitive in enumerate(room.primitives):
        if not isinstance(primitive.shape, Panel):
            expected |= primitive.shape.contains(coord, 0.001) & (owner != number)
    assert expected.sum() > by_walls
    assert (_hidden(room, coord, normal, owner) == expected).all()
