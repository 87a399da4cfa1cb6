"""Windows through the networks: all folds, mirrored copies, mixed precision."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from dinomed3d.inference.nnunet.slice_feature_cache import SharedSlices, is_shareable
from dinomed3d.inference.nnunet.sliding_window import Batch


class Predictor:
    """The mean logits of several networks over mirrored copies of a window."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        mirroring: Sequence[int] | None,
        device: torch.device,
        precision: torch.dtype | None,
        lanes: int = 1,
    ) -> None:
        """Put the networks where they run.

        Args:
            networks: one per fold, in eval mode.
            mirroring: spatial axes of a window along which it is also read mirrored; all combinations.
            device: of the networks.
            precision: of autocast, None for float32.
            lanes: batches that are in the networks at the same time, each on a thread of its own. On a CPU
                two windows on one core each are faster than one after the other on two.
        """
        moved = [network.to(device).eval() for network in networks]
        self.networks = [SharedSlices(n) if is_shareable(n) else n for n in moved]
        axes = [axis + 2 for axis in mirroring or ()]
        self.flips = [
            flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)
        ]
        self.device = device
        self.precision = precision
        # features that windows share are kept in order, so those windows go one after the other
        self.lanes = 1 if any(isinstance(n, SharedSlices) for n in self.networks) else lanes

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision, or nothing."""
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def begin(self) -> None:
        """Another volume, or the same from its first slice on."""
        for network in self.networks:
            if isinstance(network, SharedSlices):
                network.begin()

    def stream(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Predict batches in their order, some of them ahead where there are several lanes."""
        if self.lanes == 1:
            yield from (self(*batch) for batch in batches)
            return
        threads = torch.get_num_threads()
        each = max(1, threads // self.lanes)
        pool = ThreadPoolExecutor(
            self.lanes, "lane", initializer=torch.set_num_threads, initargs=(each,)
        )
        torch.set_num_threads(
            1
        )  # what this thread does beside the lanes must not wait for their cores
        ahead: deque[Future[Tensor]] = deque()
        try:
            for batch in batches:
                ahead.append(pool.submit(self, *batch))
                if len(ahead) > self.lanes:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(threads)

    @property
    def slice_bytes(self) -> int:
        """Of the features kept for one slice at one place in the plane; 0 where nothing is kept."""
        shared = [n.slice_bytes for n in self.networks if isinstance(n, SharedSlices)]
        return sum(shared) * len(self.flips)

    @torch.inference_mode()
    def __call__(self, windows: Tensor, places: list[tuple[int, int, int]]) -> Tensor:
        """Predict windows.

        Args:
            windows: (B, C, *patch).
            places: where in the volume each begins, (z, y, x).

        Returns:
            Mean logits (B, heads, *patch) float32.
        """
        total = None
        with self.autocast():
            for network in self.networks:
                for flip in self.flips:
                    seen = torch.flip(windows, flip) if flip else windows
                    if isinstance(network, SharedSlices):
                        logits = network(seen, places, flip)
                    else:
                        logits = network(seen)
                    logits = (torch.flip(logits, flip) if flip else logits).float()
                    total = logits if total is None else total.add_(logits)
        assert total is not None
        count = len(self.networks) * len(self.flips)
        return total if count == 1 else total.div_(count)
