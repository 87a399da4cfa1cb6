"""How sure a network is of classes: the probability of the class, the entropy of all, the margin to the second."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pointseg.files.labelling.certainty import MEASURES, STEPS

AT_ONCE = 2**24
"""Scores whose probabilities are in memory at once."""


def certainty_of(scores: Tensor) -> NDArray[np.uint16]:
    """The largest probability, the entropy as a share of its maximum log K, and the largest minus the second.

    Args:
        scores: (M, K) sums of probabilities.

    Returns:
        (M, 3) ``MEASURES``, rounded to whole ``STEPS``.
    """
    classes = scores.shape[1]
    found = np.empty((len(scores), len(MEASURES)), np.uint16)
    rows = max(1, AT_ONCE // classes)
    for first in range(0, len(scores), rows):
        part = scores[first : first + rows]
        shares = part / part.sum(1, keepdim=True)
        first_two = shares.topk(min(2, classes), dim=1).values
        margin = first_two[:, 0] - first_two[:, 1] if classes > 1 else first_two[:, 0]
        logs = shares.clamp_min(torch.finfo(shares.dtype).tiny).log()
        entropy = -(shares * logs).sum(1) / (math.log(classes) if classes > 1 else 1.0)
        values = torch.stack([first_two[:, 0], entropy, margin], dim=1)
        steps = (values.clamp(0, 1) * STEPS).round()
        found[first : first + rows] = steps.cpu().numpy()
    return found
