"""Memory and arithmetic that a training step may take."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dinomed3d.runtime.errors import UserError

TFLOP_PER_GIB = 2.0
"""A step's arithmetic, at most, per GiB of the target: about a second on GPUs of that memory, so that
the default lengths take a day and a half, as nnU-Net's large presets do."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Memory and arithmetic that a step may take."""

    memory_gib: float
    """What the user gives: nnU-Net's -gpu_memory_target."""
    unhurried: bool = False
    """A step may take any time."""

    def __post_init__(self) -> None:
        """Refuse what is no size."""
        if not 0 < self.memory_gib < math.inf:
            raise UserError(
                f"planner: -gpu_memory_target must be a positive number of GiB, got {self.memory_gib}"
            )

    @property
    def memory(self) -> float:
        """Bytes for tensors: a tenth is left for the allocator's gaps, 0.5 GiB for CUDA and cuDNN."""
        return max(0.0, 0.9 * self.memory_gib - 0.5) * 2**30

    @staticmethod
    def for_bytes(peak: float) -> float:
        """The GiB to give for so many bytes of tensors; the inverse of `memory`."""
        return (peak / 2**30 + 0.5) / 0.9

    @property
    def flops(self) -> float:
        """Of a whole step."""
        return math.inf if self.unhurried else TFLOP_PER_GIB * self.memory_gib * 1e12
