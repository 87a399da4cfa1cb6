"""Which encoder a checkpoint holds, from the sizes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dinomed3d.lifting import WeightsError, find_weights
from dinomed3d.lifting.weights import read_checkpoint
from dinomed3d.runtime.errors import UserError
from planners.encoders import ENCODERS

_GATED = ("mlp.w1", "mlp.w12", "mlp.fc1_g", "mlp.gate_proj", "mlp.weights_in")


def encoder_of_weights(source: str) -> str | None:
    """The encoder of the weights at hand, so that no plan asks for another.

    Args:
        source: the setting DINOMED3D_WEIGHTS.

    Returns:
        A name of ENCODERS; None where any will do ("hub", "none").

    Raises:
        UserError: weights that are not there or cannot be read, or of sizes that have no name.
    """
    if source in ("", "hub", "none"):
        return None
    ways = "Mend or unset DINOMED3D_WEIGHTS, or say with DINOMED3D_ENCODER which encoder it will be"
    try:
        path: Path = find_weights(source, hub_repository="")
        state = read_checkpoint(path)
    except WeightsError as error:
        raise UserError(f"planner: DINOMED3D_WEIGHTS: {error}. {ways}") from error
    name = encoder_of_shapes({key: tuple(value.shape) for key, value in state.items()})
    if name is None:
        raise UserError(
            f"planner: the weights in {path} are of none of {', '.join(ENCODERS)}. {ways} "
            "(and DINOMED3D_ENCODER_OVERRIDES, if it is one of your own sizes)"
        )
    return name


def encoder_of_shapes(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The encoder with tensors of these shapes, in Meta's, Hugging Face's or timm's names.

    Args:
        shapes: by key, prefixes allowed.

    Returns:
        A name of ENCODERS, or None if there is none of that width, depth, patch and MLP.
    """
    width = _ending(shapes, ("cls_token",))
    patch = _ending(shapes, ("patch_embed.proj.weight", "patch_embeddings.weight",
                             "patch_embeddings.projection.weight"))  # fmt: skip
    numbers = [re.search(r"(?:blocks|layer|layers)\.(\d+)\.", key) for key in shapes]
    depth = 1 + max((int(found[1]) for found in numbers if found), default=-1)
    gated = any(part in key for key in shapes for part in _GATED)
    for name, size in ENCODERS.items():
        # DINOv2's giant has both branches in one layer named like a plain one
        mlp = size.packed or size.gated == gated
        if (width, patch, depth) == (size.width, size.patch, size.depth) and mlp:
            return name
    return None


def _ending(shapes: Mapping[str, tuple[int, ...]], endings: Iterable[str]) -> int | None:
    """Last side of the first tensor whose name ends so."""
    found = (s for key, s in shapes.items() if key.endswith(tuple(endings)) and s)
    return next((shape[-1] for shape in found), None)
