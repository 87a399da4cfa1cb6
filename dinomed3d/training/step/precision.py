"""The precision in which a device trains."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from dinomed3d.runtime.hardware.device import has_native_bfloat16


def fast_precision(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device computes it natively, float16 on older CUDA devices, else None."""
    if has_native_bfloat16(device.type):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else None


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision on a device where it is faster, else a null context."""
    precision = fast_precision(device)
    return nullcontext() if precision is None else torch.autocast(device.type, precision)
