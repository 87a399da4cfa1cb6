"""Recognises errors that mean too little memory, on every device."""

from __future__ import annotations

import torch


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, numpy or Python means that there is not enough memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("DefaultCPUAllocator", "not enough memory", "out of memory")
    )
