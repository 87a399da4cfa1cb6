"""Making one feature per site out of the views that see it, one view at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class ViewFusion(ABC):
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


class SelectView(ViewFusion):
    """One view per site: only that one need be sampled, and ``lift`` samples no other."""

    last_wins = False
    """Whether every view takes all sites that it sees: begun with the last view, sites are settled."""

    def start(self, sites: int, channels: int, *, like: Tensor) -> None:
        """See Fuse.start."""
        super().start(sites, channels, like=like)
        self.begin(sites, like.device)

    def begin(self, sites: int, device: torch.device) -> None:
        """Forget what was chosen for N sites; features need not be known yet."""

    @abstractmethod
    def choose(self, index: Tensor, distance: Tensor) -> Tensor:
        """Take in that a view sees some sites.

        Args:
            index: (M,) sites, each once.
            distance: (M,) from the view, in its own unit.

        Returns:
            (M,) whether the site takes this view, in place of the one it had.
        """

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See Fuse.add."""
        assert self.values is not None and self.seen is not None
        taken = self.choose(index, distance)
        self.values[index[taken]] = features[taken]
        self.seen[index] = True


class Last(SelectView):
    """The last view that sees a site wins."""

    last_wins = True

    def choose(self, index: Tensor, distance: Tensor) -> Tensor:
        """See Choice.choose."""
        return torch.ones_like(index, dtype=torch.bool)


class Nearest(SelectView):
    """The view nearest to a site wins; of equally near ones (in float32) the first."""

    def begin(self, sites: int, device: torch.device) -> None:
        """See Choice.begin."""
        self.distance = torch.full((sites,), float("inf"), device=device)

    def choose(self, index: Tensor, distance: Tensor) -> Tensor:
        """See Choice.choose."""
        distance = distance.detach().to(self.distance.dtype)
        nearer = distance < self.distance[index]
        self.distance[index[nearer]] = distance[nearer]
        return nearer


class Random(SelectView):
    """Each of the views that see a site wins equally often, whatever their number.

    What is drawn depends on the generator and on a site's place among the sites alone, not on the
    device nor on how much is computed at a time.

    Source: reservoir sampling of one item (Waterman, in Knuth, The Art of Computer Programming 2,
    section 3.4.2, algorithm R); each site's numbers by the generator of MMIX (section 3.3.4).
    """

    def __init__(self, generator: torch.Generator) -> None:
        """Take draws from ``generator`` (on the CPU), as many for every ``start``."""
        super().__init__()
        self.generator = generator

    def begin(self, sites: int, device: torch.device) -> None:
        """See Choice.begin."""
        limit = torch.iinfo(torch.int64)
        state = torch.randint(limit.min, limit.max, (sites,), generator=self.generator)
        self.state = state.to(device)
        self.count = torch.zeros(sites, dtype=torch.int64, device=device)

    def choose(self, index: Tensor, distance: Tensor) -> Tensor:
        """See Choice.choose."""
        count = self.count[index] + 1
        state = self.state[index] * 6364136223846793005 + 1442695040888963407  # modulo 2^64
        self.count[index], self.state[index] = count, state
        # The upper 31 bits as a fraction of 1, below 1 / count.
        return ((state >> 33) & 0x7FFFFFFF) * count < 2**31


class Mean(ViewFusion):
    """The mean of all views that see a site."""

    def start(self, sites: int, channels: int, *, like: Tensor) -> None:
        """See Fuse.start."""
        super().start(sites, channels, like=like)
        # In half precision counting would end at 256 (bfloat16) or 2048.
        exact = torch.promote_types(like.dtype, torch.float32)
        self.count = torch.zeros(sites, 1, dtype=exact, device=like.device)

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See Fuse.add."""
        assert self.values is not None and self.seen is not None
        self.count[index] += 1
        share = 1 / self.count[index]
        before = self.values.index_select(0, index)
        self.values[index] = torch.lerp(before, features, share.to(features.dtype))
        self.seen[index] = True


class Max(ViewFusion):
    """The largest value of every channel over the views that see a site."""

    def add(self, index: Tensor, features: Tensor, distance: Tensor) -> None:
        """See Fuse.add."""
        assert self.values is not None and self.seen is not None
        before = self.values.index_select(0, index)
        larger = torch.maximum(before, features)
        self.values[index] = torch.where(self.seen[index, None], larger, features)
        self.seen[index] = True
