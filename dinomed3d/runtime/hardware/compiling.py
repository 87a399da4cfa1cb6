"""Whether networks are compiled (torch.compile): nnU-Net's rule and variable, and what Triton needs for it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

BACKEND = "inductor"
"""PyTorch's own, which writes kernels in Triton."""


def compiler(kind: str, *, by_default: bool) -> tuple[str | None, str]:
    """The backend of torch.compile, as nnU-Net decides: on CUDA, not on Windows, by nnUNet_compile.

    Args:
        kind: of device: cpu, cuda or mps.
        by_default: whether networks are compiled where nnUNet_compile is not set; nnU-Net does so in training.

    Returns:
        The backend, or None; and why there is none.
    """
    if kind != "cuda":
        return None, f"networks are not compiled on {kind}"
    if os.name == "nt":
        return None, "networks are not compiled on Windows"
    asked = os.environ.get("nnUNet_compile")
    if asked is not None:
        on = asked.lower() in ("true", "1", "t")
        return (BACKEND, "") if on else (None, f"nnUNet_compile={asked}")
    if not by_default:
        return None, "nnUNet_compile is not set"
    missing = missing_for_triton()
    return (None, f"Triton needs {missing}") if missing else (BACKEND, "")


def missing_for_triton() -> str:
    """What Triton does not find on this machine: it compiles a few lines of C before its first kernel."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton, which is not installed"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "a C compiler, and there is no gcc or clang"
    header = Path(sysconfig.get_path("include"), "Python.h")
    return "" if header.is_file() else f"Python's headers, and {header} is not there"
