"""Cumulative counts, by which Pointcept's layout says where each cloud of a batch ends."""

from __future__ import annotations

import torch
from torch import Tensor


def counts_of(offset: Tensor) -> Tensor:
    """(B,) int64 points of each cloud, from their (B,) cumulative counts."""
    return torch.diff(offset, prepend=offset.new_zeros(1))


def batch_of(offset: Tensor, count: int) -> Tensor:
    """(count,) int64 number of the cloud that each of ``count`` points belongs to."""
    numbers = torch.arange(len(offset), device=offset.device)
    return torch.repeat_interleave(numbers, counts_of(offset), output_size=count)


def ends_of(batch: Tensor, clouds: int) -> Tensor:
    """(clouds,) int64 cumulative counts, from the (N,) ascending number of the cloud of each point."""
    return torch.searchsorted(batch, torch.arange(clouds, device=batch.device), right=True)
