"""Units and axes."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.datasets.axes import upright
from pointseg.scene import Scene


def scene():
    fields = {"normal": np.array([[0, 1, 0]], np.float32), "n": np.array([7])}
    return Scene(
        coord=np.array([[1, 2, 3]], np.float32), fields=fields, origin=np.array([100.0, 200, 0])
    )


def test_millimetres():
    found = upright(scene(), unit_m=0.001)
    np.testing.assert_allclose(found.coord, [[0.001, 0.002, 0.003]])
    np.testing.assert_allclose(found.origin, [0.1, 0.2, 0])
    assert found["normal"].tolist() == [[0, 1, 0]] and found["n"].tolist() == [7]


def test_y_up():
    found = upright(scene(), up="y")
    assert found.coord.tolist() == [[1, -3, 2]] and found.coord.dtype == np.float32
    assert found.origin.tolist() == [100, 0, 200] and found["normal"].tolist() == [[0, 0, 1]]
    frame = np.eye(3, dtype=np.float32)  # turned, not mirrored
    assert np.linalg.det(upright(Scene(coord=frame), up="y").coord) == pytest.approx(1)


def test_y_down():
    found = upright(scene(), up="-y")
    assert found.coord.tolist() == [[1, 3, -2]]
    assert found.origin.tolist() == [100, 0, -200] and found["normal"].tolist() == [[0, 0, -1]]
    frame = np.eye(3, dtype=np.float32)
    assert np.linalg.det(upright(Scene(coord=frame), up="-y").coord) == pytest.approx(1)


def test_metres_with_z_up_stay():
    given = scene()
    assert upright(given) is given


@pytest.mark.parametrize("wrong", [{"up": "x"}, {"unit_m": 0.0}, {"unit_m": float("inf")}])
def test_other_axes_and_units_are_refused(wrong):
    with pytest.raises(ValueError, match="'up' must be z, y or -y and 'unit_m' above 0"):
        upright(scene(), **wrong)


def test_heights_in_another_unit_turn_normals_as_they_turn_surfaces():
    slope = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 0]], np.float32)  # z = x
    normal = np.array([[-1, 0, 1]] * 3, np.float32) / np.float32(np.sqrt(2))
    normal[2] = 0
    found = upright(Scene(coord=slope, fields={"normal": normal}), unit_m=(0.5, 0.5, 2.0))
    assert found.coord.tolist() == [[0, 0, 0], [0.5, 0, 2], [0, 0.5, 0]]
    wanted = np.array([-4, 0, 1]) / np.sqrt(17)  # z = 4 x
    np.testing.assert_allclose(found["normal"], [wanted, wanted, [0, 0, 0]], atol=1e-6)
