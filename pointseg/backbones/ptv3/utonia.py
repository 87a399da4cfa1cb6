"""Utonia: Sonata's network with rotary positions in every attention; Pointcept's PT-v3m3.

Source: the released code of Utonia (Pointcept).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pointseg.backbones.ptv3.attention import Attention
from pointseg.backbones.ptv3.rotary_positions import PositionJitter, RotaryPositions
from pointseg.backbones.ptv3.sonata import Sonata


class Utonia(Sonata):
    """Utonia; arguments have the names and meaning of ``config`` in its file, the defaults are the published ones.

    Queries and keys are turned by ``Cloud.coord`` as it is given: its scale matters, and only differences of
    positions do. The frequencies are in the state dict; those of a file are used as they are.

    Args:
        rope_base: of the frequencies; None: no rotation, which makes it Sonata.
        shift_coords: the largest random shift of the positions along each axis, in training; None: none.
        jitter_coords: the largest random factor along each axis, in training; None or at most 1: none.
        rescale_coords: the largest random factor of all axes together, likewise.
        dec_rope_enable: whether the decoder's attention has rotary positions, too.
        enc_channels, dec_channels, dec_num_head: as ``Sonata``; 6, 12, ... or 18 channels per head.
        config: all other arguments of ``Sonata``.

    Raises:
        ValueError: as ``Sonata``; channels per head that are no multiple of 6.
    """

    def __init__(
        self,
        *,
        rope_base: float | None = 10.0,
        shift_coords: float | None = None,
        jitter_coords: float | None = 1.1,
        rescale_coords: float | None = 1.2,
        dec_rope_enable: bool = True,
        enc_channels: Sequence[int] = (54, 108, 216, 432, 576),
        dec_channels: Sequence[int] = (54, 108, 216, 432),
        dec_num_head: Sequence[int] = (3, 6, 12, 24),
        **config: Any,
    ) -> None:
        super().__init__(
            enc_channels=enc_channels,
            dec_channels=dec_channels,
            dec_num_head=dec_num_head,
            **config,
        )
        if rope_base is None:
            return
        jitter = PositionJitter(shift=shift_coords, jitter=jitter_coords, rescale=rescale_coords)
        for part in (self.enc, self.dec) if dec_rope_enable else (self.enc,):
            for attention in part.modules():
                if isinstance(attention, Attention):
                    channels = attention.proj.in_features // attention.heads
                    attention.rope = RotaryPositions(
                        channels, rope_base, positions="coord", jitter=jitter, saved=True
                    )
