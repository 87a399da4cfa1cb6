"""Prediction of windows: all folds, test-time mirroring, mixed precision."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from dinomed3d.inference.nnunet.slice_feature_cache import (
    SliceFeatureCache,
    halo_of,
    is_cacheable,
)
from dinomed3d.inference.nnunet.sliding_window import Batch
from dinomed3d.networks import DinoMed3D
from dinomed3d.runtime.compiling import compiler


class Predictor:
    """Mean logits of several networks over mirrored copies of a window."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        mirroring: Sequence[int] | None,
        device: torch.device,
        precision: torch.dtype | None,
        threads: int = 1,
    ) -> None:
        """Move the networks to their device, and compile them if nnUNet_compile asks for it (on CUDA).

        Args:
            networks: one per fold, in eval mode.
            mirroring: spatial axes of a window for test-time mirroring, in all combinations.
            device: of the networks.
            precision: of autocast, None for float32.
            threads: batches that are predicted in parallel. On a CPU two windows on one core each are
                faster than one after the other on two cores.
        """
        moved = [network.to(device).eval() for network in networks]
        backend, _ = compiler(device.type, unasked=False)
        if backend is not None:
            for network in moved:
                network.compile(backend=backend)
        self.networks = [
            SliceFeatureCache(n, compiler=backend) if is_cacheable(n) else n for n in moved
        ]
        axes = [axis + 2 for axis in mirroring or ()]
        self.flips = [
            flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)
        ]
        self.device = device
        self.precision = precision
        # cached features are shared in the order of windows, so those go one after the other
        self.caches = [n for n in self.networks if isinstance(n, SliceFeatureCache)]
        self.threads = 1 if self.caches else threads
        self.halo = max(map(halo_of, moved))
        """Planes beyond both ends of a window that a network can read."""

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision, or nothing."""
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)

    def clear_cache(self) -> None:
        """Forget cached features, before another volume or row range."""
        for cache in self.caches:
            cache.clear()

    def predict(self, batches: Iterable[Batch]) -> Iterator[Tensor]:
        """Yield the logits of batches in order; with several threads some are predicted ahead."""
        if self.threads == 1:
            yield from (self(*batch) for batch in batches)
            return
        cores = torch.get_num_threads()
        each = max(1, cores // self.threads)
        pool = ThreadPoolExecutor(
            self.threads, "predict", initializer=torch.set_num_threads, initargs=(each,)
        )
        torch.set_num_threads(1)  # this thread must not wait for the cores of the others
        ahead: deque[Future[Tensor]] = deque()
        try:
            for batch in batches:
                ahead.append(pool.submit(self, *batch))
                if len(ahead) > self.threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            torch.set_num_threads(cores)

    def limit_cache(self, limit: int) -> None:
        """Set how many bytes of cached features are kept; what does not fit is computed again."""
        for cache in self.caches:
            cache.limit = limit // len(self.caches)

    @property
    def slice_bytes(self) -> int:
        """Size of the cached features of one slice at one position; 0 where nothing is cached."""
        return sum(
            cache.slice_bytes * len({cache.views(flip) for flip in self.flips})
            for cache in self.caches
        )

    @torch.inference_mode()
    def __call__(
        self,
        windows: Tensor,
        places: list[tuple[int, int, int]],
        halo: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Predict windows.

        Args:
            windows: (B, C, *patch), of 3D patches with the halo at both ends of the first axis.
            places: positions (z, y, x) in the volume, without the halo.
            halo: planes before and after each window, which a DinoMed3D's embedding reads; others are
                given the window without.

        Returns:
            Mean logits (B, heads, *patch) float32.
        """
        total = None
        with self.autocast():
            for network in self.networks:
                for flip in self.flips:
                    mirrored = torch.flip(windows, flip) if flip else windows
                    ends = halo[::-1] if 2 in flip else halo
                    if isinstance(network, SliceFeatureCache):
                        logits = network(mirrored, places, flip, halo=ends)
                    elif isinstance(network, DinoMed3D):
                        logits = network(mirrored, halo=ends)
                    else:
                        inside = mirrored.shape[2] - sum(ends)
                        logits = network(mirrored.narrow(2, ends[0], inside))
                    logits = (torch.flip(logits, flip) if flip else logits).float()
                    total = logits if total is None else total.add_(logits)
        assert total is not None
        count = len(self.networks) * len(self.flips)
        return total if count == 1 else total.div_(count)
