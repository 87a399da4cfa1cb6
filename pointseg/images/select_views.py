"""Selects the views of a scene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def select_views(
    frames: Sequence[Any], count: int | None, rng: np.random.Generator | None = None
) -> tuple[int, ...]:
    """Indices of the selected frames.

    Args:
        frames: F of them.
        count: V, how many at most; None: all, in their order.
        rng: for training: V frames are drawn without replacement, in random order, so that the last view,
            which wins where several see a point, is a random one. None: evenly spaced, i * floor(F / V).

    Raises:
        ValueError: ``count`` is below 1.

    Source: the published code of DITR (Knaebel et al. 2025).
    """
    if count is None:
        return tuple(range(len(frames)))
    if count < 1:
        raise ValueError(f"select_views: 'count' must be at least 1, got {count}")
    if rng is not None:
        return tuple(rng.permutation(len(frames))[:count].tolist())
    count = min(count, len(frames))
    return tuple(number * (len(frames) // count) for number in range(count))
