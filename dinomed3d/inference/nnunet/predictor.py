"""Prediction of windows: all folds, test-time mirroring, mixed precision."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, TypeAlias, cast

import torch
from torch import Tensor, nn

from dinomed3d.inference.nnunet.cpu_blocks import with_cpu_blocks
from dinomed3d.inference.nnunet.sliding_window import Batch
from dinomed3d.inference.nnunet.window_networks import WindowNetwork, window_network
from dinomed3d.runtime.hardware.compiling import compiler
from dinomed3d.runtime.hardware.threads import single_threaded

if TYPE_CHECKING:
    from dinomed3d.inference.nnunet.slice_feature_cache import SliceFeatureCache


_Pass: TypeAlias = tuple[WindowNetwork, tuple[int, ...]]
"""A network, and the axes of a window along which it is mirrored."""


class Predictor:
    """Mean logits of several networks over mirrored copies of a window."""

    def __init__(
        self,
        networks: Iterable[nn.Module],
        *,
        mirroring: Sequence[int] | None,
        device: torch.device,
        precision: torch.dtype | None,
        threads: int = 1,
    ) -> None:
        """Move the networks to their device, and compile them if nnUNet_compile asks for it (on CUDA).

        Args:
            networks: one per fold; they are set to eval mode. A network that is trained further needs a new
                predictor: this one shares some of its tensors, and has copies of others.
            mirroring: spatial axes of a window for test-time mirroring, in all combinations.
            device: of the networks.
            precision: of autocast, None for float32.
            threads: passes of networks in parallel. On a CPU two windows on one core each are faster than one
                after the other on two cores.
        """
        backend, _ = compiler(device.type, by_default=False)
        self.networks: list[WindowNetwork] = []
        for network in networks:
            moved = network.to(device).eval()
            if backend is not None:
                moved.compile(backend=backend)
            elif device.type == "cpu" and precision is None:
                moved = with_cpu_blocks(moved)
            self.networks.append(window_network(moved, compiler=backend))
        axes = [axis + 2 for axis in mirroring or ()]
        self.flips = [
            flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)
        ]
        self.device = device
        self.precision = precision
        # cached features are shared in the order of windows, so those go one after the other
        self.caches = [cast("SliceFeatureCache", n) for n in self.networks if hasattr(n, "clear")]
        self.threads = 1 if self.caches else threads
        self.on_pass: Callable[[], None] = lambda: None
        """Is called after each pass of a batch, from any thread: a sign of progress."""
        self.halo = max(network.halo for network in self.networks)
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

    def predict(self, batches: Iterable[Batch]) -> Generator[Tensor, None, None]:
        """Yield the logits of batches in order; with several threads some are predicted ahead."""
        if self.threads == 1:
            yield from (self(*batch) for batch in batches)
            return
        ahead: deque[list[Future[_Mean]]] = deque()
        batches_ahead = -(-self.threads // len(self.passes))
        with single_threaded() as cores:  # this thread must not wait for the cores of the others
            each = max(1, cores // self.threads)
            pool = ThreadPoolExecutor(
                self.threads, "predict", initializer=torch.set_num_threads, initargs=(each,)
            )
            try:
                for batch in batches:
                    mean = _Mean(len(self.passes))
                    ahead.append(
                        [
                            pool.submit(self._add_pass, mean, number, one, *batch)
                            for number, one in enumerate(self.passes)
                        ]
                    )
                    if len(ahead) > batches_ahead:
                        yield _result(ahead.popleft())
                while ahead:
                    yield _result(ahead.popleft())
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

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

    @property
    def passes(self) -> list[_Pass]:
        """The passes whose mean is the result: each network with each combination of mirrored axes."""
        return list(itertools.product(self.networks, self.flips))

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
        return self._mean_of(self.passes, windows, places, halo)

    def try_passes(self, windows: Tensor, places: list[tuple[int, int, int]]) -> Tensor:
        """Predict windows once with each network and, where passes are mirrored, once more mirrored along all axes.

        That takes as much memory as all passes, of which five folds have forty: minutes on a CPU before the first case.

        Args:
            windows: (B, C, *patch), without halo.
            places: as in a call.

        Returns:
            Mean logits of these passes, (B, heads, *patch) float32.
        """
        mirrored = self.passes[-1:] if len(self.flips) > 1 else []
        return self._mean_of(self.passes[:: len(self.flips)] + mirrored, windows, places, (0, 0))

    def _mean_of(
        self,
        passes: list[_Pass],
        windows: Tensor,
        places: list[tuple[int, int, int]],
        halo: tuple[int, int],
    ) -> Tensor:
        """The mean of the logits of some passes."""
        mean = _Mean(len(passes))
        for number, one in enumerate(passes):
            self._add_pass(mean, number, one, windows, places, halo)
        return mean.result()

    @torch.inference_mode()
    def _add_pass(
        self,
        mean: _Mean,
        number: int,
        one: _Pass,
        windows: Tensor,
        places: list[tuple[int, int, int]],
        halo: tuple[int, int],
    ) -> _Mean:
        """Predict windows in one pass, the mean's part of that number, and add the logits to the mean."""
        network, flip = one
        with self.autocast():
            mirrored = torch.flip(windows, flip) if flip else windows
            logits = network(mirrored, places, flip, halo=halo[::-1] if 2 in flip else halo)
            mean.add(number, (torch.flip(logits, flip) if flip else logits).float())
        self.on_pass()
        return mean


class _Mean:
    """A mean whose parts may arrive in any order, always summed in the same one: equal for any number of threads."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.added = 0
        self.total: Tensor | None = None
        self.early: dict[int, Tensor] = {}
        self.lock = Lock()

    def add(self, number: int, part: Tensor) -> None:
        """Add a part once all parts with lower numbers are there."""
        with self.lock:
            self.early[number] = part
            while self.added in self.early:
                part = self.early.pop(self.added)
                self.total = part if self.total is None else self.total.add_(part)
                self.added += 1

    @torch.inference_mode()
    def result(self) -> Tensor:
        """The mean of all parts, once all are there."""
        assert self.total is not None and self.added == self.count
        return self.total if self.count == 1 else self.total.div_(self.count)


def _result(passes: list[Future[_Mean]]) -> Tensor:
    """The mean of a batch once all of its passes are done."""
    return [one.result() for one in passes][-1].result()
