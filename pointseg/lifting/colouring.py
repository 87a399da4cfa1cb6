"""Colours of points by their features: principal components, or similarity to one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointseg.pictures.overlay import UNSEEN
from pointseg.pictures.pca import components

SAMPLE = 8192
"""Points, at most, that principal components are found from."""
_LOWEST = 2.0
"""Per cent of the points whose similarity gets the darkest colour."""


class Colouring(Protocol):
    """Collects features block by block, and knows the colours when all have come."""

    def add(self, rows: NDArray[np.int64], features: Tensor) -> None:
        """Take the (n, C) features of (n,) points that an image shows."""

    def colors(self) -> NDArray[np.uint8]:
        """(N, 3) colours of all points; grey where no image shows one."""

    def fields(self) -> dict[str, NDArray[np.float32]]:
        """(N,) values of all points by name."""

    @property
    def title(self) -> str:
        """What the colours mean."""


class PcaColouring:
    """The first three principal components of the features as red, green and blue."""

    title = "principal components of the features"

    def __init__(self, count: int, sample: Tensor) -> None:
        """Find the components.

        Args:
            count: N points.
            sample: (n, C) features of points that an image shows.
        """
        self._found = components([sample], directions=True)
        self._colors = np.full((count, 3), UNSEEN, np.uint8)

    def add(self, rows: NDArray[np.int64], features: Tensor) -> None:
        """See Colouring.add."""
        self._colors[rows] = self._found.colors(features)

    def colors(self) -> NDArray[np.uint8]:
        """See Colouring.colors."""
        return self._colors

    def fields(self) -> dict[str, NDArray[np.float32]]:
        """No values."""
        return {}


class SimilarityColouring:
    """Cosine similarity to the features of one point, from dark (least) to bright (1)."""

    def __init__(self, count: int, reference: Tensor) -> None:
        """Begin with points that no image shows.

        Args:
            count: N points.
            reference: (C,) features of the picked point.
        """
        self._reference = torch.nn.functional.normalize(reference.float(), dim=0)
        self._values = np.full(count, np.nan, np.float32)

    def add(self, rows: NDArray[np.int64], features: Tensor) -> None:
        """See Colouring.add."""
        found = torch.nn.functional.normalize(features.float(), dim=1) @ self._reference
        self._values[rows] = found.cpu().numpy()

    def colors(self) -> NDArray[np.uint8]:
        """See Colouring.colors."""
        from matplotlib import colormaps  # slow to import

        low, known = self._low, np.isfinite(self._values)
        scaled = (self._values[known] - low) / max(1 - low, 1e-6)
        colors = np.full((len(self._values), 3), UNSEEN, np.uint8)
        colors[known] = colormaps["inferno"](np.clip(scaled, 0, 1), bytes=True)[:, :3]
        return colors

    def fields(self) -> dict[str, NDArray[np.float32]]:
        """The similarity, NaN where no image shows a point."""
        return {"similarity": self._values}

    @property
    def title(self) -> str:
        """See Colouring.title."""
        return f"similarity to the picked point: {self._low:.2f} (dark) to 1 (bright)"

    @property
    def _low(self) -> float:
        return float(np.nanpercentile(self._values, _LOWEST))


def sampled(seen: NDArray[np.bool_], features_of: Callable[[NDArray[np.int64]], Tensor]) -> Tensor:
    """(n, C) features of some of the points that an image shows, the same ones each time.

    Args:
        seen: (N,) whether an image shows each point; at least one.
        features_of: from increasing rows to their features.
    """
    rows = np.random.default_rng(0).permutation(np.flatnonzero(seen))[:SAMPLE]
    return features_of(np.sort(rows))
