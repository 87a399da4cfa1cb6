"""Types of numbers that files hold."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.files.table.rows import storable


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (np.array([True]), "u1"),
        (np.array([1], np.float16), "f4"),
        (np.array([1.0]), "f8"),
        (np.array([1], np.int16), "i2"),
        (np.array([1], np.int64), "i4"),
        (np.array([2**40]), "f8"),
        (np.array([], np.uint64), "i4"),
    ],
)
def test_types_that_files_hold(values, kind):
    assert storable(values).dtype == np.dtype(kind)
