"""Making one feature per site out of the views that see it, one view at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Fuse(ABC):
    """Collects features view by view; memory is that of the result, however many the views."""

    def __init__(self) -> None:
        self.values: Tensor | None = None
        self.seen: Tensor | None = None

    def start(self, sites: int, channels: int, *, like: Tensor) -> None:
        """Forget everything; N sites of C zeros, of the type and on the device of `like`."""
        self.values = like.new_zeros(sites, channels)
        self.seen = torch.zeros(sites, dtype=torch.bool, device=like.device)

    @abstractmethod
    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """Take in what one view shows.

        Args:
            index: (M,) sites that the view sees, each once.
            features: (M, C) at these sites.
            distance: (M,) from the view, in its own unit.
        """

    def result(self) -> tuple[Tensor, Tensor]:
        """(N, C) fused features, 0 where unseen; (N,) seen."""
        assert self.values is not None and self.seen is not None, "start() comes first"
        return self.values, self.seen


class Last(Fuse):
    """The last view that sees a site wins."""

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See Fuse.add."""
        assert self.values is not None and self.seen is not None
        self.values[index] = features
        self.seen[index] = True


class Nearest(Fuse):
    """The view nearest to a site wins; of equally near ones the first."""

    def start(self, sites: int, channels: int, *, like: Tensor) -> None:
        """See Fuse.start."""
        super().start(sites, channels, like=like)
        self.distance = torch.full((sites,), float("inf"), device=like.device)

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See Fuse.add."""
        assert self.values is not None and self.seen is not None
        nearer = distance < self.distance[index]
        index = index[nearer]
        self.values[index] = features[nearer]
        self.distance[index] = distance[nearer].to(self.distance.dtype)
        self.seen[index] = True


class Mean(Fuse):
    """The mean of all views that see a site."""

    def start(self, sites: int, channels: int, *, like: Tensor) -> None:
        """See Fuse.start."""
        super().start(sites, channels, like=like)
        self.count = torch.zeros(sites, 1, dtype=like.dtype, device=like.device)

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See Fuse.add."""
        assert self.values is not None and self.seen is not None
        self.count[index] += 1
        self.values[index] += (features - self.values[index]) / self.count[index]
        self.seen[index] = True


class Max(Fuse):
    """The largest value of every channel over the views that see a site."""

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See Fuse.add."""
        assert self.values is not None and self.seen is not None
        known = self.seen[index, None]
        self.values[index] = torch.where(
            known, torch.maximum(self.values[index], features), features
        )
        self.seen[index] = True
