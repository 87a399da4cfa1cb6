"""What follows the device: how work is cut, and whether a number may be read in the middle of it.

A CPU is fastest with pieces that stay in the cache of a core, and reads a number at once. Elsewhere every
operation is a launch, so pieces should be few and large; and to read a number on the host is to wait for all
that was launched before. All code that chooses between the two asks here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

VALUES = 2**26
"""Values of a temporary that are held at once on devices other than CPUs: 256 MB in float32."""

_assumed: str | None = None


def is_cpu(where: Tensor | torch.device) -> bool:
    """Whether the ways of a CPU are taken for a tensor, or for those of a device."""
    device = where.device if isinstance(where, Tensor) else where
    return (_assumed or device.type) == "cpu"


def values_at_once(where: Tensor | torch.device, cached: int, *, width: int = 1) -> int:
    """Values of a temporary, or rows of several, that are held at once.

    Args:
        where: a tensor that is worked on, or its device.
        cached: as many as a CPU works on fastest.
        width: numbers of 32 bits that each takes.
    """
    return cached if is_cpu(where) else VALUES // width


def read(*tensors: Tensor) -> list[list[Any]]:
    """The numbers of several one-dimensional int64, float32 or bool tensors, for which the host waits once."""
    if is_cpu(tensors[0]):
        return [tensor.tolist() for tensor in tensors]
    whole = torch.cat(
        [t.view(torch.int32).long() if t.dtype == torch.float32 else t.long() for t in tensors]
    )
    numbers = iter(whole.tolist())
    found = []
    for tensor in tensors:
        own = [next(numbers) for _ in range(len(tensor))]
        if tensor.dtype == torch.float32:
            own = list(struct.unpack(f"{len(own)}f", struct.pack(f"{len(own)}i", *own)))
        found.append(own)
    return found


@contextmanager
def decided_for(kind: str) -> Iterator[None]:
    """Take the ways of another device for all tensors, wherever they are.

    With "cuda" the operations of a GPU can be counted and compared on a CPU: each must give the same.
    For tests and benchmarks; it holds for the whole process.

    Args:
        kind: a device type, as ``torch.device.type``.
    """
    global _assumed
    before, _assumed = _assumed, kind
    try:
        yield
    finally:
        _assumed = before
