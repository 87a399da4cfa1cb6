"""Windows through the networks: all folds, mirrored copies, mixed precision."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


class Predictor:
    """The mean logits of several networks over mirrored copies of a window."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        *,
        mirroring: Sequence[int] | None,
        device: torch.device,
        precision: torch.dtype | None,
    ) -> None:
        """Put the networks where they run.

        Args:
            networks: one per fold, in eval mode.
            mirroring: spatial axes of a window along which it is also read mirrored; all combinations.
            device: of the networks.
            precision: of autocast, None for float32.
        """
        self.networks = [network.to(device).eval() for network in networks]
        axes = [axis + 2 for axis in mirroring or ()]
        self.flips = [
            flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)
        ]
        self.device = device
        self.precision = precision

    def autocast(self) -> AbstractContextManager[object]:
        """Mixed precision, or nothing."""
        if self.precision is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.precision)

    @torch.inference_mode()
    def __call__(self, windows: Tensor) -> Tensor:
        """(B, C, *patch) -> mean logits (B, heads, *patch) float32."""
        total = None
        with self.autocast():
            for network in self.networks:
                for flip in self.flips:
                    logits = network(torch.flip(windows, flip) if flip else windows)
                    logits = (torch.flip(logits, flip) if flip else logits).float()
                    total = logits if total is None else total.add_(logits)
        assert total is not None
        count = len(self.networks) * len(self.flips)
        return total if count == 1 else total.div_(count)
