"""Recognises errors that mean too little memory, on every device."""

from __future__ import annotations

import torch

from dinomed3d.runtime.errors import UserError


class OutOfMemory(UserError):
    """A training batch that does not fit."""

    def __init__(self, *, points: int, fitted: int) -> None:
        known = f" (the largest that fitted had {fitted})" if fitted else ""
        goal = int(0.8 * fitted) if fitted else points // 2
        super().__init__(
            f"out of memory with {points} voxels in one part of a batch{known}: cut the batch into "
            f"more parts (--parts), take smaller crops (--override max_points={goal} limits each "
            "sample) or a coarser grid (--override voxel_m=...)"
        )


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, numpy or Python means that there is not enough memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("DefaultCPUAllocator", "not enough memory", "out of memory")
    )
