"""The one --device option: which device is meant."""

from __future__ import annotations

from dinomed3d.runtime.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")


def choose_device(name: str) -> str:
    """auto, cpu, cuda or mps -> cpu, cuda or mps.

    Raises:
        UserError: a device that PyTorch does not find on this machine.
    """
    import torch  # late, so that --help does not wait for it

    if name == "auto":  # mps must be asked for: it lacks some 3D operators
        return "cuda" if torch.cuda.is_available() else "cpu"
    absent = (name == "cuda" and not torch.cuda.is_available()) or (
        name == "mps" and not torch.backends.mps.is_available()
    )
    if absent:
        raise UserError(
            f"--device {name}: PyTorch finds no {name.upper()} device; use --device cpu"
        )
    return name
