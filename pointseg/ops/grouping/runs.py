"""Runs of equal values in sorted rows, without asking the device for more than how many there are."""

from __future__ import annotations

import torch
from torch import Tensor


def numbers_of_runs(values: Tensor) -> Tensor:
    """(..., N) int64: how many runs of equal values begin before the one that each is in."""
    begins = torch.zeros_like(values, dtype=torch.bool)
    torch.ne(values[..., 1:], values[..., :-1], out=begins[..., 1:])
    return begins.cumsum(-1)


def starts_of_runs(numbers: Tensor, count: int) -> Tensor:
    """(..., count + 1) int64: where each of ``count`` runs begins, and the end; by the numbers of the runs."""
    wanted = torch.arange(count + 1, device=numbers.device)
    return torch.searchsorted(numbers, wanted.expand(*numbers.shape[:-1], count + 1).contiguous())


def ends_of_runs(numbers: Tensor, offset: Tensor) -> Tensor:
    """(B,) int64 cumulative counts of runs, where those of values are ``offset``; no run is in two clouds."""
    # before the first value of a cloud are as many runs as its number says, after all of them one more than the last's
    return torch.cat([numbers.new_full((1,), -1), numbers]).index_select(0, offset) + 1
