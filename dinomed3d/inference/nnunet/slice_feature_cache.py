"""Slice features that overlapping windows share are computed once.

Without 3D adapters a slice's features depend on its own neighbours alone, not on the rest of the
window. Two windows that overlap along the slice axis then ask the encoder for the same slices; here
they are kept from one layer of windows to the next. With adapters features depend on the window, and
nothing is shared: the answer stays exactly what the network gives for each window.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from dinomed3d.lifting import neighbour_slices
from dinomed3d.networks import DinoMed3D

Key = tuple[tuple[int, ...], int, int, tuple[int, ...]]
"""The slices read, where in the plane, and what is mirrored."""


def is_shareable(network: nn.Module) -> TypeGuard[DinoMed3D]:
    """Whether a slice's features are the same in every window that holds it and its neighbours."""
    return (
        isinstance(network, DinoMed3D)
        and network.encoder is not None
        and len(network.encoder.adapters) == 0
        and network.embedding is not None
    )


class SharedSlices:
    """A network whose slice features are kept while later windows may ask for them."""

    def __init__(self, network: DinoMed3D) -> None:
        """Begin with nothing kept.

        Args:
            network: one that `is_shareable`.
        """
        self.network = network
        self.kept: dict[Key, list[Tensor]] = {}
        self.encoded = 0
        """Slices that went through the encoder, so far."""

    def begin(self) -> None:
        """Another volume, or the same from its first slice on."""
        self.kept.clear()

    @property
    def slice_bytes(self) -> int:
        """Of one kept slice's features; 0 before there are any."""
        taps = next(iter(self.kept.values()), [])
        return sum(tap.numel() * tap.element_size() for tap in taps)

    def __call__(
        self, windows: Tensor, places: list[tuple[int, int, int]], flip: tuple[int, ...]
    ) -> Tensor:
        """Segment windows.

        Args:
            windows: (B, C, D, H, W), mirrored already; from call to call they begin at the same slice or a later one.
            places: where in the volume each begins, (z, y, x).
            flip: the axes of `windows` that are mirrored.

        Returns:
            Logits (B, heads, D, H, W).
        """
        first = places[0][0]
        self.kept = {key: taps for key, taps in self.kept.items() if max(key[0]) >= first}
        logits = [
            self._one(window[None], place, flip)
            for window, place in zip(windows, places, strict=True)
        ]
        return torch.cat(logits)

    def _one(self, window: Tensor, place: tuple[int, int, int], flip: tuple[int, ...]) -> Tensor:
        network = self.network
        assert network.encoder is not None and network.embedding is not None
        first, depth = place[0], window.shape[2]
        neighbours = neighbour_slices(
            torch.arange(depth), slices=network.embedding.slices, depth=depth
        )
        keys: list[Key] = []
        for read in neighbours.tolist():
            # a window's ends repeat its last slice, so the neighbours really read are part of the key
            slices = [first + (depth - 1 - n if 2 in flip else n) for n in read]
            keys.append((tuple(slices), place[1], place[2], flip))
        missing = [number for number, key in enumerate(keys) if key not in self.kept]
        if missing:
            images = network.embedding(network.image(network.pad(window)))[missing]
            taps = network.encoder(images, depth=len(missing))
            self.encoded += len(missing)
            for i, number in enumerate(missing):
                self.kept[keys[number]] = [tap[:, :, i].clone() for tap in taps]
        count = len(self.kept[keys[0]])
        joined = [torch.stack([self.kept[key][i] for key in keys], 2) for i in range(count)]
        logits = network(window, joined)
        assert isinstance(logits, Tensor)
        return logits
