"""Batch normalisation of rows, as the published 3D networks set it up."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """Normalises channels over all rows of a batch, with the published networks' constants.

    Where a single row is left, as at the coarsest level of a tiny crop, it has no statistics of its
    own and takes the running ones in training, too.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, momentum=0.01)

    def forward(self, feat: Tensor) -> Tensor:
        """(N, C) -> (N, C)."""
        if len(feat) > 1:
            return super().forward(feat)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(feat, mean, var, self.weight, self.bias, eps=self.eps)
