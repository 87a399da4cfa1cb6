"""Ranks of numbers in pieces, against sorting."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.prediction.streaming.order_statistics import order_statistics


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_ranks_are_those_of_sorting(kind):
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(1000) * 10.0 ** rng.integers(-30, 30, 1000)).astype(kind)
    values[::7] = values[3]  # many times the same
    values[:4] = [0, np.finfo(kind).max, np.finfo(kind).tiny / 4, -np.inf]
    parts, ranks = np.array_split(values, 7), [0, 1, 499, 500, 501, 998, 999]
    expected = np.sort(values)[ranks].tolist()
    assert order_statistics(lambda: iter(parts), ranks, kind) == expected
    assert order_statistics(lambda: [values[:1]], [0], kind) == values[:1].tolist()
