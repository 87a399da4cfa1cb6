"""The encoder's precision: never float16, which the activations of DINOv3 do not fit."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from dinomed3d.runtime.hardware.device import has_native_bfloat16


def encoder_precision(device: torch.device) -> AbstractContextManager[object]:
    """Replace float16 autocast, which stock nnU-Net predicts under, while the encoder runs.

    Largest activations of DINOv3 exceed 65,504. They become infinite in float16 and not a number in the
    next norm, and nnU-Net makes background of that. bfloat16 has the range of float32.

    Args:
        device: of the images.

    Returns:
        Inside float16 autocast: bfloat16 autocast, or none (float32) where the device does not compute
        bfloat16 natively. Elsewhere, whatever is there.
    """
    if not torch.is_autocast_enabled(device.type):
        return nullcontext()
    if torch.get_autocast_dtype(device.type) != torch.float16:
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16, enabled=_computes_bfloat16(device.type))


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _computes_bfloat16(kind: str) -> bool:
    """A constant to torch.compile, which could not look into PyTorch's own questions to the hardware."""
    return has_native_bfloat16(kind)
