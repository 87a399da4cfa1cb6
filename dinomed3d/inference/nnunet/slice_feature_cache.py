"""Slice features that overlapping windows share are computed once.

Without 3D adapters the features of a slice depend on its neighbours alone, not on the rest of the
window. Windows that overlap along the slice axis need the features of the same slices, so they are
cached from one layer of windows to the next. With adapters features depend on the window and nothing
is cached: the result is always exactly what the network gives for each window.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from dinomed3d.lifting import neighbour_slices
from dinomed3d.networks import DinoMed3D

Key = tuple[tuple[int, ...], int, int, tuple[int, ...]]
"""The slices read, the position in the plane, and the mirrored axes."""


def is_cacheable(network: nn.Module) -> TypeGuard[DinoMed3D]:
    """Whether the features of a slice are the same in every window with it and its neighbours."""
    return (
        isinstance(network, DinoMed3D)
        and network.encoder is not None
        and len(network.encoder.adapters) == 0
        and network.embedding is not None
        and network.spec.slices_per_token == 1
    )


class SliceFeatureCache:
    """A network whose slice features are kept as long as later windows may need them."""

    def __init__(self, network: DinoMed3D) -> None:
        """Begin empty, for a network that `is_cacheable`."""
        self.network = network
        self.kept: dict[Key, list[Tensor]] = {}
        self.encoded = 0
        """Number of slices that went through the encoder."""

    def clear(self) -> None:
        """Forget everything, before another volume or row range."""
        self.kept.clear()

    @property
    def slice_bytes(self) -> int:
        """Size of the features of one slice; 0 before there are any."""
        taps = next(iter(self.kept.values()), [])
        return sum(tap.numel() * tap.element_size() for tap in taps)

    def __call__(
        self, windows: Tensor, places: list[tuple[int, int, int]], flip: tuple[int, ...]
    ) -> Tensor:
        """Predict windows.

        Args:
            windows: (B, C, D, H, W), mirrored already; successive calls begin at the same slice or later.
            places: positions (z, y, x) in the volume.
            flip: the axes of `windows` that are mirrored.

        Returns:
            Logits (B, heads, D, H, W).
        """
        first = places[0][0]
        self.kept = {key: taps for key, taps in self.kept.items() if max(key[0]) >= first}
        pairs = zip(windows, places, strict=True)
        return torch.cat([self._predict(window[None], place, flip) for window, place in pairs])

    def _predict(
        self, window: Tensor, place: tuple[int, int, int], flip: tuple[int, ...]
    ) -> Tensor:
        network = self.network
        assert network.encoder is not None and network.embedding is not None
        first, depth = place[0], window.shape[2]
        # a window repeats its own last slice at its ends, so the slices that are read are part of the key
        read = neighbour_slices(torch.arange(depth), slices=network.embedding.slices, depth=depth)
        numbers = first + (depth - 1 - read if 2 in flip else read)
        keys: list[Key] = [(tuple(row), place[1], place[2], flip) for row in numbers.tolist()]
        missing = [number for number, key in enumerate(keys) if key not in self.kept]
        if missing:
            images = network.images(window)[missing]
            taps = network.encoder(images, depth=len(missing))
            self.encoded += len(missing)
            for i, number in enumerate(missing):
                self.kept[keys[number]] = [tap[:, :, i].clone() for tap in taps]
        levels = zip(*(self.kept[key] for key in keys), strict=True)
        logits = network(window, [torch.stack(level, 2) for level in levels])
        assert isinstance(logits, Tensor)
        return logits
