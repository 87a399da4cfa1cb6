"""Identify the encoder of a checkpoint by the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dinomed3d.lifting import WeightsError, find_weights
from dinomed3d.lifting.weights import read_checkpoint
from dinomed3d.runtime.errors import UserError
from planners.cost.encoder_sizes import ENCODERS

_REGISTERS = ("reg_token", "register_tokens", "storage_tokens")
"""Endings of the registers' names in timm's, DINOv2's and Hugging Face's, and DINOv3's files; (1, N, C)."""
_GATED = ("mlp.w1", "mlp.w12", "mlp.fc1_g", "mlp.gate_proj", "mlp.weights_in")


def encoder_of_weights(source: str) -> str | None:
    """The encoder of the given weights, so that the plan names no other.

    Args:
        source: the setting DINOMED3D_WEIGHTS.

    Returns:
        A name of ENCODERS; None if the weights fit any ("hub", "none").

    Raises:
        UserError: weights are missing, cannot be read, or are of an unknown size.
    """
    if source in ("", "hub", "none"):
        return None
    remedy = "Correct or unset DINOMED3D_WEIGHTS, or name the encoder with DINOMED3D_ENCODER"
    try:
        path: Path = find_weights(source, hub_repository="")
        state = read_checkpoint(path)
    except WeightsError as error:
        raise UserError(f"planner: DINOMED3D_WEIGHTS: {error}. {remedy}") from error
    name = encoder_of_shapes({key: tuple(value.shape) for key, value in state.items()})
    if name is None:
        raise UserError(
            f"planner: the weights in {path} belong to none of {', '.join(ENCODERS)}. {remedy} "
            "(and DINOMED3D_ENCODER_OVERRIDES, if it is of another size)"
        )
    return name


def encoder_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The encoder with tensors of these shapes, in Meta's, Hugging Face's or timm's layout.

    Args:
        shapes: by key, prefixes allowed.

    Returns:
        A name of ENCODERS, or None if none has this width, depth, patch size, MLP and number of registers.
    """
    width = _ending(shapes, ("cls_token",))
    patch = _ending(shapes, ("patch_embed.proj.weight", "patch_embeddings.weight",
                             "patch_embeddings.projection.weight"))  # fmt: skip
    prefix = 1 + (_ending(shapes, _REGISTERS, dimension=-2) or 0)
    numbers = [re.search(r"(?:blocks|layer|layers)\.(\d+)\.", key) for key in shapes]
    depth = 1 + max((int(found[1]) for found in numbers if found), default=-1)
    gated = any(part in key for key in shapes for part in _GATED)
    for name, size in ENCODERS.items():
        # DINOv2's giant has both branches in one layer, named like that of a plain MLP
        mlp = size.packed or size.gated == gated
        sizes = (size.width, size.patch, size.depth, size.prefix)
        if (width, patch, depth, prefix) == sizes and mlp:
            return name
    return None


def _ending(
    shapes: Mapping[str, tuple[int, ...]], endings: Iterable[str], *, dimension: int = -1
) -> int | None:
    """One dimension of the first tensor whose name has one of these endings; None if there is none."""
    found = (s for key, s in shapes.items() if key.endswith(tuple(endings)) and s)
    return next((s[dimension] for s in found if len(s) >= -dimension), None)
