"""Limits on memory and compute (FLOPs) of a training step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dinomed3d.runtime.errors import UserError

TFLOP_PER_GIB = 2.0
"""Most TFLOPs of a step per GiB of memory: about a second on GPUs of that size, so that a
training of default length takes a day and a half, as with nnU-Net's large presets."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limits on memory and compute of a step."""

    memory_gib: float
    """Memory of the GPU: nnU-Net's -gpu_memory_target."""
    unlimited_time: bool = False
    """Whether the compute of a step is unlimited."""

    def __post_init__(self) -> None:
        """Refuse a memory that is not positive and finite."""
        if not 0 < self.memory_gib < math.inf:
            raise UserError(
                f"planner: -gpu_memory_target must be a positive number of GiB, got {self.memory_gib}"
            )

    @property
    def memory(self) -> float:
        """Bytes for tensors: a tenth is reserved for gaps of the allocator, 0.5 GiB for CUDA and cuDNN."""
        return max(0.0, 0.9 * self.memory_gib - 0.5) * 2**30

    @staticmethod
    def for_bytes(peak: float) -> float:
        """GPU memory in GiB that so many bytes of tensors need; the inverse of `memory`."""
        return (peak / 2**30 + 0.5) / 0.9

    @property
    def flops(self) -> float:
        """Floating-point operations of a whole step."""
        return math.inf if self.unlimited_time else TFLOP_PER_GIB * self.memory_gib * 1e12
