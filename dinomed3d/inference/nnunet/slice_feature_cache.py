"""What the encoder's first blocks say of a slice is computed once for all windows with that slice.

The blocks before the first inter-slice module see a slice and the neighbours in its embedding, not the
rest of the window. Windows that overlap along the slice axis, or along it alone, need the same tokens of
the same slices, so these are cached from one layer of windows to the next, and a window only runs the
other blocks. The result is always exactly what the network gives for each window.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from dinomed3d.lifting import neighbour_slices
from dinomed3d.networks import DinoMed3D
from dinomed3d.networks.volume_encoder import SliceTokens

Key = tuple[tuple[int, ...], int, int, tuple[int, ...]]
"""The slices read, the position in the plane, and the mirrored axes."""
DEFAULT_LIMIT = 2**30
"""Bytes of cached tokens where no limit is set."""


def is_cacheable(network: nn.Module) -> TypeGuard[DinoMed3D]:
    """Whether a network has blocks whose tokens are the same in every window with a slice."""
    return (
        isinstance(network, DinoMed3D)
        and network.encoder is not None
        and network.encoder.shared_blocks > 0
        and network.embedding is not None
        and network.spec.slices_per_token == 1
    )


def halo_of(network: nn.Module) -> int:
    """Planes beyond both ends of a window that a network can read: those of a DinoMed3D's embedding."""
    if isinstance(network, DinoMed3D) and network.embedding is not None:
        return network.embedding.slices // 2
    return 0


class SliceFeatureCache:
    """A network whose slice tokens are kept as long as later windows may need them."""

    def __init__(
        self, network: DinoMed3D, *, limit: int = DEFAULT_LIMIT, compiler: str | None = None
    ) -> None:
        """Begin empty.

        Args:
            network: one that `is_cacheable`; what compiles it is left to the caller.
            limit: bytes to keep at most; what does not fit is computed again.
            compiler: the backend of torch.compile for the two parts of the encoder, or None.
        """
        assert network.encoder is not None and network.embedding is not None
        self.network = network
        self.encoder = network.encoder
        self.each_slice, self.across_slices = self.encoder.each_slice, self.encoder.across_slices
        if compiler is not None:
            self.each_slice = torch.compile(self.each_slice, backend=compiler)
            self.across_slices = torch.compile(self.across_slices, backend=compiler)
        self.embedding = network.embedding
        self.halo = halo_of(network)
        self.limit = limit
        self.kept: dict[Key, tuple[Tensor, ...]] = {}
        self.rope: Tensor | None = None
        """Rotary positions, the same for all slices."""
        self.image_size = (0, 0)
        self.encoded = 0
        """Number of slices that went through the shared blocks."""

    def clear(self) -> None:
        """Forget everything, before another volume or row range."""
        self.kept.clear()

    def views(self, flip: tuple[int, ...]) -> tuple[int, ...]:
        """Mirrored axes that give a slice other tokens: not the slice axis if it has no neighbours."""
        return tuple(axis for axis in flip if axis != 2 or self.embedding.slices > 1)

    @property
    def slice_bytes(self) -> int:
        """Size of the tokens of one slice; 0 before there are any."""
        return sum(map(_bytes, next(iter(self.kept.values()), ())))

    def __call__(
        self,
        windows: Tensor,
        places: list[tuple[int, int, int]],
        flip: tuple[int, ...],
        *,
        halo: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Predict windows.

        Args:
            windows: (B, C, below + D + above, H, W), mirrored already; successive calls begin at the same
                slice or later. Windows of a 2D network (B, C, H, W) share nothing.
            places: positions (z, y, x) in the volume, without the halo.
            flip: the axes of `windows` that are mirrored.
            halo: (below, above), slices that the embedding alone reads.

        Returns:
            Logits (B, heads, D, H, W) or (B, heads, H, W).
        """
        if windows.ndim == 4:
            logits = self.network(windows)
            assert isinstance(logits, Tensor)
            return logits
        first = places[0][0]
        middle = self.embedding.slices // 2
        self.kept = {key: kept for key, kept in self.kept.items() if key[0][middle] >= first}
        return torch.cat(
            [
                self._predict(window[None], self._keys(window.shape[1], place, flip, halo), halo)
                for window, place in zip(windows, places, strict=True)
            ]
        )

    def _keys(
        self,
        slices: int,
        place: tuple[int, int, int],
        flip: tuple[int, ...],
        halo: tuple[int, int],
    ) -> list[Key]:
        """What each slice of a window is kept under: the slices of the volume that it is read with."""
        inner = torch.arange(halo[0], slices - halo[1])
        read = neighbour_slices(inner, slices=self.embedding.slices, depth=slices)
        if 2 in flip:  # the halo is mirrored too: what is below now was above
            numbers = place[0] - halo[1] + slices - 1 - read
        else:
            numbers = place[0] - halo[0] + read
        return [(tuple(row), place[1], place[2], self.views(flip)) for row in numbers.tolist()]

    def _predict(self, window: Tensor, keys: list[Key], halo: tuple[int, int]) -> Tensor:
        """Logits of one window (1, C, below + D + above, H, W)."""
        missing = [number for number, key in enumerate(keys) if key not in self.kept]
        found = {key: self.kept[key] for key in keys if key in self.kept}
        if missing:
            found |= zip(
                (keys[n] for n in missing), self._encode(window, missing, halo), strict=True
            )
            self._keep({keys[n]: found[keys[n]] for n in missing})
        tokens, *taps = (torch.stack(parts) for parts in zip(*map(found.get, keys), strict=True))
        slices = SliceTokens(
            tokens=tokens,
            taps=tuple(taps),
            rope=self.rope,
            image_size=self.image_size,
        )
        # without the halo, which only the embedding reads, and copied: one shape, one layout, one graph
        inner = window[:, :, halo[0] : window.shape[2] - halo[1]].clone(
            memory_format=torch.contiguous_format
        )
        logits = self.network(inner, self.across_slices(slices, depth=len(keys)))
        assert isinstance(logits, Tensor)
        return logits

    def _encode(
        self, window: Tensor, missing: list[int], halo: tuple[int, int]
    ) -> list[tuple[Tensor, ...]]:
        """Tokens and taps of some slices after the shared blocks."""
        images = self.network.images(window, halo=halo)[missing]
        state = self.each_slice(images)
        self.rope, self.image_size = state.rope, state.image_size
        self.encoded += len(missing)
        tokens = state.tokens
        if not len(self.encoder.adapters):
            tokens = tokens[:, :0]  # no block is left that would read them
        return [
            tuple(part[i].clone() for part in (tokens, *state.taps)) for i in range(len(missing))
        ]

    def _keep(self, new: dict[Key, tuple[Tensor, ...]]) -> None:
        """Keep what fits the limit."""
        room = self.limit // max(1, sum(map(_bytes, next(iter(new.values()))))) - len(self.kept)
        self.kept |= list(new.items())[: max(0, room)]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
