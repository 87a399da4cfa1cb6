"""Recognises errors that mean too little memory, on every device."""

from __future__ import annotations

import sys


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, numpy or Python means that there is not enough memory."""
    # An error of torch has imported it; processes without torch do without it here, too.
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (torch and isinstance(error, torch.OutOfMemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("DefaultCPUAllocator", "not enough memory", "out of memory")
    )
