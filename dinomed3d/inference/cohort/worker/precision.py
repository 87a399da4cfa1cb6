"""The precision that a model predicts with."""

from __future__ import annotations

import torch

from dinomed3d.inference.nnunet.build_network import OURS
from dinomed3d.runtime.hardware.device import check_precision


def choose_precision(name: str, trainer: str, device: torch.device) -> torch.dtype | None:
    """The precision of autocast, None for float32.

    "auto" is what the model was trained with on such a device: nnU-Net's trainers float16 on CUDA and
    float32 elsewhere, as nnU-Net predicts; ours what `fast_precision` says.

    Raises:
        UserError: a CPU has no instructions for it.
    """
    if name == "auto":
        if trainer == OURS:
            from dinomed3d.training.step.precision import fast_precision  # takes seconds

            return fast_precision(device)
        return torch.float16 if device.type == "cuda" else None
    check_precision(name, device.type)
    return None if name == "float32" else getattr(torch, name)
