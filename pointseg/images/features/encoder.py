"""The image encoder that points are given features of: DINOv3 or DINOv2, frozen, its last layer alone."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import torch

from dinomed3d.lifting import DinoEncoder, WeightsError, build_encoder
from dinomed3d.runtime.errors import UserError

RANDOM = "none"
"""In the place of a file of weights: random ones, always the same; for tests and demonstrations."""


def open_encoder(
    name: str,
    weights: str | os.PathLike[str],
    config: Mapping[str, Any] | None = None,
    *,
    precision: torch.dtype | None = None,
) -> DinoEncoder:
    """A frozen encoder that gives patch tokens of its last block after the final norm.

    Args:
        name: one of ``dinomed3d.lifting.MODELS``.
        weights: what ``dinomed3d.lifting.build_encoder`` takes; "none": random, the same each time.
        config: timm's arguments for another size.
        precision: for autocast; None: as the weights are.

    Raises:
        UserError: an unknown encoder; weights that are not there, unreadable or of another encoder.

    Source: section 2.5 of the method's description.
    """
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            encoder = build_encoder(name, weights=weights, precision=precision, **(config or {}))
    except (ValueError, WeightsError) as error:
        raise UserError(f"--encoder {name}, --weights {os.fspath(weights)}: {error}") from error
    encoder.taps = encoder.taps[-1:]
    return encoder


def weights_digest(encoder: torch.nn.Module) -> str:
    """SHA-256 of the names, shapes and values of all weights, whichever file they came from."""
    digest = hashlib.sha256()
    for name, values in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {tuple(values.shape)} {values.dtype}\n".encode())
        exact = values.detach().cpu().contiguous().reshape(-1)
        digest.update(exact.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
