"""The precision in which a device trains."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


def fast_precision(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device computes it natively, float16 on older CUDA devices, else None."""
    if device.type == "cuda":
        return (
            torch.bfloat16
            if torch.cuda.is_bf16_supported(including_emulation=False)
            else torch.float16
        )
    if device.type == "cpu":
        # emulated bfloat16 is slower than float32, so the processor must have the instructions
        report: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        native = report.get("avx512_bf16") or report.get("amx_bf16") or report.get("arm_bf16")
        return torch.bfloat16 if native else None
    return None


def autocast(device: torch.device) -> AbstractContextManager[object]:
    """Mixed precision on a device where it is faster, else a null context."""
    precision = fast_precision(device)
    return nullcontext() if precision is None else torch.autocast(device.type, precision)
