"""The one --device option: which device is meant."""

from __future__ import annotations

from dinomed3d.runtime.errors import UserError


def choose_device(name: str) -> str:
    """auto, cpu, cuda or mps -> cpu, cuda or mps.

    Raises:
        UserError: a device that PyTorch does not see here.
    """
    import torch  # late, so that --help does not wait for it

    if name == "auto":  # mps is left to those who ask for it: it lacks some 3D operators
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch sees no CUDA device; use --device cpu")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UserError("--device mps: PyTorch sees no MPS device; use --device cpu")
    return name
