"""Devices that networks can run on, and Triton, whose kernels some of them run on CUDA."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator

from dinomed3d.cli.doctor.imports import import_error
from dinomed3d.dataset.findings import Finding


def devices() -> Iterator[Finding]:
    """Each device, its memory, and the precision in which networks train on it."""
    if reason := import_error("torch"):
        fix = "reinstall it: pip install --force-reinstall torch"
        yield Finding(
            topic="devices", says=f"torch cannot be imported: {reason}", state="error", fix=fix
        )
        return
    import torch

    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory_gib = properties.total_memory / 2**30
        says = f"{properties.name}, {memory_gib:.0f} GiB, {_precision('cuda')}"
        yield Finding(topic=f"device cuda:{index}", says=says)
    if torch.backends.mps.is_available():
        yield Finding(topic="device mps", says=f"available, {_precision('mps')}")
    elif not torch.cuda.is_available():
        fix = "give nnU-Net's commands '-device cpu'; training will be slow"
        yield Finding(topic="device cuda", says="none", state="note", fix=fix)
    says = f"{os.cpu_count() or 1} cores, {_precision('cpu')}"
    yield Finding(topic="device cpu", says=says)


def _precision(device: str) -> str:
    import torch

    from dinomed3d.training.step.precision import fast_precision

    precision = fast_precision(torch.device(device)) or torch.float32
    return f"trains in {str(precision).removeprefix('torch.')}"


def triton() -> Iterator[Finding]:
    """Whether clouds on CUDA run through Triton's kernels, and what is compiled."""
    if not import_error("torch"):  # of which `devices` says why
        yield _triton()


def _triton() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(
            topic="Triton", says="not needed without CUDA: plain PyTorch gives the same numbers"
        )
    if importlib.util.find_spec("triton") is None:
        says = "not installed: clouds and compiled networks take the slower, plain path, with the same numbers"
        if os.name == "nt":
            return Finding(topic="Triton", says=says)
        fix = "reinstall PyTorch's own wheel for Linux, which brings it: pip install --force-reinstall torch"
        return Finding(topic="Triton", says=says, state="note", fix=fix)
    if reason := import_error("triton"):
        fix = "reinstall PyTorch, which brings it: pip install --force-reinstall torch"
        return Finding(topic="Triton", says=f"cannot be imported: {reason}", state="error", fix=fix)
    says = f"{importlib.metadata.version('triton')}, used for clouds and compiled networks on CUDA"
    if shutil.which("cc") is None and shutil.which("gcc") is None and shutil.which("clang") is None:
        fix = "install a C compiler, such as gcc: Triton compiles a small module with it"
        return Finding(
            topic="Triton", says=f"{says}, but there is no C compiler", state="note", fix=fix
        )
    return Finding(topic="Triton", says=says)
