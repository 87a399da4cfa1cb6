"""Fusing the features of several views into one per point, one view at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class ViewFusion(ABC):
    """Collects features view by view; memory is that of the result, for any number of views."""

    def __init__(self) -> None:
        self.values: Tensor | None = None
        self.seen: Tensor | None = None

    def start(self, points: int, channels: int, *, like: Tensor) -> None:
        """Reset to N points of C zeros, of the type and on the device of `like`."""
        self.values = like.new_zeros(points, channels)
        self.seen = torch.zeros(points, dtype=torch.bool, device=like.device)

    @abstractmethod
    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """Add the features of one view.

        Args:
            index: (M,) points that the view sees, each once.
            features: (M, C) at these points.
            distance: (M,) from the view, in its own unit.
        """

    def result(self) -> tuple[Tensor, Tensor]:
        """(N, C) fused features, 0 where no view sees the point; (N,) whether any view does."""
        assert self.values is not None and self.seen is not None, "start() comes first"
        return self.values, self.seen


class SelectView(ViewFusion):
    """Selects one view per point; ``lift`` samples that view alone."""

    last_wins = False
    """True if later views overwrite earlier ones; then views are visited last to first and each point
    is assigned once."""

    def start(self, points: int, channels: int, *, like: Tensor) -> None:
        """See ViewFusion.start."""
        super().start(points, channels, like=like)
        self.reset(points, like.device)

    def reset(self, points: int, device: torch.device) -> None:
        """Forget the selection for N points; features need not be known yet."""

    @abstractmethod
    def update(self, index: Tensor, distance: Tensor) -> Tensor:
        """Offer a view to the points that it sees.

        Args:
            index: (M,) points, each once.
            distance: (M,) from the view, in its own unit.

        Returns:
            (M,) whether the point now selects this view.
        """

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See ViewFusion.add."""
        assert self.values is not None and self.seen is not None
        selected = self.update(index, distance)
        self.values[index[selected]] = features[selected]
        self.seen[index] = True


class Last(SelectView):
    """Selects the last view that sees a point."""

    last_wins = True

    def update(self, index: Tensor, distance: Tensor) -> Tensor:
        """See SelectView.update."""
        return torch.ones_like(index, dtype=torch.bool)


class Nearest(SelectView):
    """Selects the view nearest to a point; of equally near ones (in float32) the first."""

    def reset(self, points: int, device: torch.device) -> None:
        """See SelectView.reset."""
        self.distance = torch.full((points,), float("inf"), device=device)

    def update(self, index: Tensor, distance: Tensor) -> Tensor:
        """See SelectView.update."""
        distance = distance.detach().to(self.distance.dtype)
        nearer = distance < self.distance[index]
        self.distance[index[nearer]] = distance[nearer]
        return nearer


class Random(SelectView):
    """Selects each of the views that see a point with equal probability.

    The selection depends only on the generator and on a point's row, not on the device or on the
    chunk size.

    Source: reservoir sampling of one item (Waterman, in Knuth, The Art of Computer Programming 2,
    section 3.4.2, algorithm R); each point's numbers by the generator of MMIX (section 3.3.4).
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Take a generator (on the CPU); every ``start`` draws once for each point."""
        super().__init__()
        self.generator = generator

    def reset(self, points: int, device: torch.device) -> None:
        """See SelectView.reset."""
        limit = torch.iinfo(torch.int64)
        state = torch.randint(limit.min, limit.max, (points,), generator=self.generator)
        self.state = state.to(device)
        self.count = torch.zeros(points, dtype=torch.int64, device=device)

    def update(self, index: Tensor, distance: Tensor) -> Tensor:
        """See SelectView.update."""
        count = self.count[index] + 1
        state = self.state[index] * 6364136223846793005 + 1442695040888963407  # modulo 2^64
        self.count[index], self.state[index] = count, state
        # The upper 31 bits as a fraction of 1, below 1 / count.
        return ((state >> 33) & 0x7FFFFFFF) * count < 2**31


class Mean(ViewFusion):
    """The mean over all views that see a point."""

    def start(self, points: int, channels: int, *, like: Tensor) -> None:
        """See ViewFusion.start."""
        super().start(points, channels, like=like)
        self._count_from_zero(points, like)

    def start_unwritten(self, points: int, channels: int, *, like: Tensor) -> None:
        """As ``start``, for ``merge``, whose first call for each point writes what memory holds till then.

        A large result is not cleared first: to be given its memory takes longer than to write it.
        """
        self.values = like.new_empty(points, channels)
        self.seen = torch.zeros(points, dtype=torch.bool, device=like.device)
        self._count_from_zero(points, like)

    def _count_from_zero(self, points: int, like: Tensor) -> None:
        # In half precision counting would end at 256 (bfloat16) or 2048.
        exact = torch.promote_types(like.dtype, torch.float32)
        self.count = torch.zeros(points, 1, dtype=exact, device=like.device)

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See ViewFusion.add."""
        assert self.values is not None and self.seen is not None
        self.count[index] += 1
        share = 1 / self.count[index]
        before = self.values.index_select(0, index)
        self.values[index] = torch.lerp(before, features, share.to(features.dtype))
        self.seen[index] = True

    def merge(self, rows: slice, means: Tensor, count: Tensor, *, first: bool) -> None:
        """Add several views of consecutive points at once.

        Args:
            rows: of n points.
            means: (n, C) mean over these views; 0 where none of them sees a point.
            count: (n,) how many of these views see each point.
            first: whether these points have nothing yet, so that what memory holds there does not count.
        """
        assert self.values is not None and self.seen is not None
        new, before = count[:, None].to(self.count.dtype), self.count[rows]
        if first:
            self.values[rows] = means
        else:
            self.values[rows].lerp_(means, (new / (before + new).clamp_(min=1)).to(means.dtype))
        before += new
        self.seen[rows] |= count > 0


class Max(ViewFusion):
    """The largest value of every channel over the views that see a point."""

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See ViewFusion.add."""
        assert self.values is not None and self.seen is not None
        before = self.values.index_select(0, index)
        larger = torch.maximum(before, features)
        self.values[index] = torch.where(self.seen[index, None], larger, features)
        self.seen[index] = True
