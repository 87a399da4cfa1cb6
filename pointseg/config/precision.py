"""In which number format networks compute, by the --precision option and the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dinomed3d.runtime.hardware.device import check_precision

if TYPE_CHECKING:
    import torch


def choose_precision(name: str, device: str) -> str:
    """Resolve ``auto``: float16 on CUDA, float32 elsewhere.

    Args:
        name: auto, float32, float16 or bfloat16.
        device: cpu, cuda or mps; a number may follow, as in cuda:1.

    Returns:
        float32, float16 or bfloat16.

    Raises:
        UserError: a CPU has no instructions for it.
    """
    if name == "auto":
        return "float16" if device.startswith("cuda") else "float32"
    check_precision(name, device)
    return name


def encoder_dtype(precision: str, device: str) -> torch.dtype | None:
    """The autocast type of an image encoder: bfloat16 on CUDA unless float32 is asked for, else None.

    The largest activations of DINOv3 overflow float16.
    """
    import torch

    return torch.bfloat16 if device.startswith("cuda") and precision != "float32" else None
