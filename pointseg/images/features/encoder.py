"""The frozen image encoder, DINOv3 or DINOv2, of which the last layer is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dinomed3d.lifting import DinoEncoder, WeightsError, build_encoder
from dinomed3d.lifting.missing_weights import POINTS, where_to_get_weights
from dinomed3d.lifting.weights import HubError
from dinomed3d.runtime.errors import UserError

RANDOM = "none"
"""Instead of a weights file: random weights, always the same, for tests and demonstrations."""


def open_encoder(
    name: str,
    weights: str | os.PathLike[str],
    config: Mapping[str, Any] | None = None,
    *,
    precision: torch.dtype | None = None,
    taps: Sequence[int] = (-1,),
) -> DinoEncoder:
    """Open an encoder that gives the patch tokens of some of its blocks, each after the final norm.

    Args:
        name: one of ``dinomed3d.lifting.MODELS``.
        weights: as for ``dinomed3d.lifting.build_encoder``; "none": random weights, the same each time.
        config: arguments for timm that give it another size.
        precision: type for autocast; None: that of the weights.
        taps: numbers of the blocks, as ``ImageConfig.taps``.

    Raises:
        UserError: there is no such block, or they are not in order; the encoder is unknown; the weights are
            missing, unreadable or of another encoder.

    Source: DITR (Knaebel et al. 2025), section 3.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = build_encoder(name, weights=weights, precision=precision, **(config or {}))
    except (ValueError, WeightsError) as error:
        advice = f". {where_to_get_weights(name, POINTS)}" if isinstance(error, HubError) else ""
        raise UserError(
            f"--encoder {name}, --weights {os.fspath(weights)}: {error}{advice}"
        ) from error
    encoder.taps = blocks_of(taps, encoder.depth, name)
    return encoder


def blocks_of(taps: Sequence[int], depth: int, name: str) -> tuple[int, ...]:
    """Numbers of blocks from the first one, of numbers of which those below 0 count from the last one.

    Args:
        taps: as ``ImageConfig.taps``.
        depth: number of blocks.
        name: of the encoder, for the message.

    Raises:
        UserError: there is no such block, or they are not in increasing order.
    """
    blocks = tuple(tap + depth if tap < 0 else tap for tap in taps)
    if (
        not blocks
        or list(blocks) != sorted(set(blocks))
        or not 0 <= blocks[0] <= blocks[-1] < depth
    ):
        raise UserError(
            f"images.taps {list(taps)}: must be increasing numbers of the {depth} blocks of {name}, 0 to {depth - 1} "
            f"or {-depth} to -1 from the last one"
        )
    return blocks


def weights_digest(encoder: torch.nn.Module) -> str:
    """SHA-256 of the names, shapes and values of all weights, independent of the file format."""
    digest = hashlib.sha256()
    for name, values in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        exact = values.detach().cpu().contiguous().reshape(-1)
        digest.update(exact.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
