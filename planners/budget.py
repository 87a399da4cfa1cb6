"""The memory of a GPU that a training step may fill."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dinomed3d.runtime.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Limit on the memory of a step."""

    memory_gib: float
    """Memory of the GPU: nnU-Net's -gpu_memory_target."""

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
