"""Intrinsics and the size of their image."""

from __future__ import annotations

import re

import pytest
import torch

from pointseg.images.readers.intrinsics import intrinsics_problem
from tests.pointseg.images.street import camera


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([[70, 0, 40], [0, 70, 30]], ""),
        ([[70, 0, 34], [0, 72, 33]], ""),
        ([[35, 0, 20], [0, 35, 15]], "K is for another size.* about 40 x 30: multiply .* by 2"),
        ([[140, 0, 80], [0, 140, 60]], "about 160 x 120: .* by 0.5"),
        ([[70, 0, 5], [0, 70, 30]], "far from the middle"),
    ],
)
def test_intrinsics_of_another_size(rows, problem):
    matrix = torch.tensor([*rows, [0, 0, 1]], dtype=torch.float64)
    found = intrinsics_problem(camera(intrinsics=matrix))
    assert (found == "") == (problem == "")
    assert re.search(problem, found)
