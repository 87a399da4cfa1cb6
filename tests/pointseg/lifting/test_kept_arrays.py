"""Arrays in memory and in a temporary file are the same."""

from __future__ import annotations

import numpy as np

from pointseg.lifting.kept_arrays import KeptArrays


def test_what_is_beyond_the_limit_comes_back_from_the_file(tmp_path):
    rng = np.random.default_rng(0)
    arrays = [
        rng.normal(size=shape).astype(kind)
        for shape, kind in (((3, 4), "f4"), ((5,), "i4"), ((0, 2), "f8"), ((2, 3, 2), "f8"))
    ]
    for limit in (0, 60, 10**6):
        with KeptArrays(limit, tmp_path) as kept:
            for array in arrays:
                kept.append(array)
            for number in (2, 0, 3, 1):
                found = kept[number]
                assert found.dtype == arrays[number].dtype
                np.testing.assert_array_equal(found, arrays[number])
    assert not list(tmp_path.iterdir())
