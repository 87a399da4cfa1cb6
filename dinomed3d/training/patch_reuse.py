"""Patches that are used in several steps, so that what the frozen encoder says of them is computed once.

Loading, augmenting and encoding a patch costs more than a step of the CNN on it. A pool keeps the last augmented
patches; each step draws its batch from the pool, and every `uses`-th step brings in a new batch. A patch is
drawn `uses` times on average, in batches of other composition each time.

Source: data echoing (Choi et al. 2019, arXiv:1907.05550), with features kept beside the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

POOL_BATCHES = 16
"""Batches that a pool holds."""


@dataclass
class Patch:
    """One augmented patch."""

    data: Tensor
    """(C, D, H, W) or (C, H, W)."""
    target: list[Tensor]
    """One (R, ...) per head, finest first."""
    taps: list[Tensor] | None = None
    """The encoder's features, (E, d, h, w) per tap on the host, once they are known."""


class PatchPool:
    """An iterator of batches over a loader's, each patch of which is used several times."""

    def __init__(self, loader: Iterator[dict[str, Any]], *, uses: int) -> None:
        """Begin empty.

        Args:
            loader: of nnU-Net's batches ("data" and "target").
            uses: how many times a patch is used on average, at least 2.
        """
        self.loader = loader
        self.uses = uses
        self.patches: list[Patch] = []
        self.step = 0

    def clear(self) -> None:
        """Forget all patches: at the end of an epoch, so that a resumed training draws the same."""
        self.patches.clear()
        self.step = 0

    def __next__(self) -> dict[str, Any]:
        """A batch of nnU-Net's size, with its patches under "patches"."""
        fresh: list[Patch] = []
        if self.step % self.uses == 0:
            fresh = patches_of(next(self.loader))
            self.patches = [*self.patches, *fresh][-POOL_BATCHES * len(fresh) :]
            self.size = len(fresh)
        self.step += 1
        chosen = fresh
        if not fresh:
            order = torch.randperm(len(self.patches))[: self.size]
            chosen = [self.patches[i] for i in order.tolist()]
        return {
            "data": torch.stack([patch.data for patch in chosen]),
            "target": [
                torch.stack(level) for level in zip(*(p.target for p in chosen), strict=True)
            ],
            "patches": chosen,
        }


def patches_of(batch: dict[str, Any]) -> list[Patch]:
    """The patches of one of nnU-Net's batches."""
    target = batch["target"]
    levels = target if isinstance(target, list) else [target]
    return [
        Patch(data=data, target=[level[i] for level in levels])
        for i, data in enumerate(batch["data"])
    ]
