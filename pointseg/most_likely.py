"""The class of each point from its scores, which must be numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from dinomed3d.runtime.errors import UserError


def most_likely(scores: Tensor, name: str) -> Tensor:
    """The class with the highest score.

    The largest of numbers that are none is the first: without this check, damaged weights or an overflow
    would read as "everything is class 0".

    Args:
        scores: (N, K) probabilities or logits.
        name: of the scene, for the message.

    Returns:
        (N,) int64.

    Raises:
        UserError: a score is NaN or infinite.
    """
    finite = torch.isfinite(scores).all(1)
    if not bool(finite.all()):
        bad = int((~finite).sum())
        raise UserError(
            f"scene {name}: the network's scores of {bad} of {len(scores)} points are not finite: its weights are "
            "damaged, or its values are too large for float16 or bfloat16 (--precision float32)"
        )
    return scores.argmax(1)
