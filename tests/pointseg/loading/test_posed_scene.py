"""Which points of a scan were measured."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.loading.posed_scene import measured_points
from pointseg.scene import Scene


@pytest.mark.parametrize("origin", [(0.0, 0.0, 0.0), (5e5, 5e6, 100.0)])
def test_what_is_not_finite_or_lies_at_zero_in_the_file_was_not_measured(
    origin: tuple[float, float, float],
) -> None:
    in_file = np.array([[1.0, 2, 3], [0, 0, 0], [np.nan, 1, 1], [0, 0, 0], [0, 0, 9]])
    in_file[[0, 4]] += origin
    scene = Scene(coord=(in_file - origin).astype(np.float32), origin=np.array(origin))
    said: list[str] = []
    assert measured_points(scene, said.append).coord.tolist() == [[1, 2, 3], [0, 0, 9]]
    assert len(said) == 2
    one = scene.select(np.array([0, 1, 4]))  # a single point may well be there
    assert len(measured_points(one, said.append)) == 3 and len(said) == 2
