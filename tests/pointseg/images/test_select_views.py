"""Which frames are used: strided or drawn."""

from __future__ import annotations

import numpy as np
import pytest

from pointseg.images.select_views import select_views


@pytest.mark.parametrize(
    ("frames", "count", "expected"),
    [
        (10, 3, (0, 3, 6)),
        (11, 5, (0, 2, 4, 6, 8)),
        (4, 4, (0, 1, 2, 3)),
        (3, 10, (0, 1, 2)),
        (6, None, (0, 1, 2, 3, 4, 5)),
        (0, 3, ()),
        (0, None, ()),
    ],
)
def test_strided(frames: int, count: int | None, expected: tuple[int, ...]) -> None:
    assert select_views(range(frames), count) == expected


def test_drawn_without_replacement_in_random_order() -> None:
    rng = np.random.default_rng(0)
    drawn = [select_views(range(6), 4, rng) for _ in range(300)]
    assert all(len(set(each)) == 4 and set(each) <= set(range(6)) for each in drawn)
    lasts = np.bincount([each[-1] for each in drawn], minlength=6)
    assert lasts.min() > 25  # each is last about as often: "last wins" is random
    assert select_views(range(6), 4, np.random.default_rng(0)) == drawn[0]
    assert {select_views(range(2), 4, rng) for _ in range(30)} == {(0, 1), (1, 0)}
    assert (
        select_views(range(6), None, rng) == tuple(range(6))
        and select_views(range(0), 3, rng) == ()
    )


def test_no_views_are_refused() -> None:
    with pytest.raises(ValueError, match="'count' must be at least 1, got 0"):
        select_views(range(3), 0)
