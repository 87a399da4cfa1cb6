"""What all readers of weights share: their error, a head for classes, and the comparison of names and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from dinomed3d.runtime.errors import UserError


class BackboneWeightsError(UserError):
    """Weights that cannot be read, or do not fit the backbone in every key."""


@dataclass(frozen=True)
class Head:
    """The last layer that came with published weights: scores of K classes."""

    weight: Tensor
    """(K, C) weights of the linear layer."""
    bias: Tensor | None
    """(K,) biases of the linear layer; None: it has none."""


def differences(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Names that are missing, left over or of another shape, in words; empty: all fit."""
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    shapes = [
        f"{key} is {tuple(state[key].shape)}, must be {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in state and state[key].shape != value.shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": shapes}
    return "; ".join(
        f"{len(keys)} {kind}: {', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''}"
        for kind, keys in kinds.items()
        if keys
    )
