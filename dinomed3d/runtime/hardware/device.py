"""The one --device option: which device is meant, and what it computes natively."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from dinomed3d.runtime.errors import UserError

DEVICES = ("auto", "cpu", "cuda", "mps")
NUMBERED = re.compile(r"(cpu|cuda|mps):\d+")
"""One of several devices of a kind, as PyTorch names it."""


def choose_device(name: str) -> str:
    """auto, cpu, cuda or mps -> cpu, cuda or mps.

    Args:
        name: one of DEVICES; from Python also one with a number, such as cuda:1, or a `torch.device`.

    Raises:
        UserError: another name, or a device that PyTorch does not find on this machine.
    """
    import torch  # late, so that --help does not wait for it

    name = str(name)
    if name not in DEVICES and not NUMBERED.fullmatch(name):
        raise UserError(f"the device must be one of {', '.join(DEVICES)}, got {name!r}")
    if name == "auto":  # mps must be asked for: it lacks some 3D operators
        return "cuda" if torch.cuda.is_available() else "cpu"
    check_device(name, option="--device")
    return name


def check_device(name: str, *, option: str) -> None:
    """Refuse a device that PyTorch does not find on this machine.

    Args:
        name: cpu, cuda or mps.
        option: of the command that chooses it.

    Raises:
        UserError: it is not there.
    """
    import torch

    kind = name.partition(":")[0]
    found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not found.get(kind, True):
        others = ["cpu", *(other for other, is_found in found.items() if is_found)]
        raise UserError(
            f"{option} {name}: PyTorch finds no {kind.upper()} device on this machine; use "
            f"{' or '.join(f'{option} {other}' for other in others)}"
        )


def has_native_bfloat16(kind: str) -> bool:
    """Whether a kind of device (cpu, cuda, mps) has instructions for bfloat16, which is slow without."""
    import torch

    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind == "cpu":
        report: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(report.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16"))
    return False


def check_precision(name: str, kind: str, option: str = "--precision") -> None:
    """Refuse a number format for which a CPU has no instructions: networks take 10 to 100 times as long as in float32.

    Args:
        name: float32, float16 or bfloat16.
        kind: of device: cpu, cuda or mps; a number may follow, as in cuda:1.
        option: of the command that chooses it.

    Raises:
        UserError: float16 on a CPU, or bfloat16 on one without instructions for it.
    """
    import torch

    if kind.partition(":")[0] != "cpu" or name == "float32":
        return
    native = has_native_bfloat16("cpu")
    is_told = hasattr(torch.cpu, "get_capabilities")  # early versions of torch 2 do not tell
    if name == "bfloat16" and (native or not is_told):
        return
    instead = "float32 or bfloat16" if native else "float32"
    raise UserError(
        f"{option} {name}: this CPU has no instructions for it and would take 10 to 100 times as long; "
        f"use {instead}"
    )


@contextmanager
def tf32_products() -> Iterator[None]:
    """Let NVIDIA's tensor cores compute float32 matrix products within: about seven times as fast there.

    Factors are rounded to 10 bits of mantissa (TF32), sums stay float32. Products on CPUs are as before.
    """
    import torch

    matmul = torch.backends.cuda.matmul
    # From torch 2.9 on the setting has a second name. Set by the first one, both can be read; by the second, one.
    allowed = (
        matmul.fp32_precision == "tf32" if hasattr(matmul, "fp32_precision") else matmul.allow_tf32
    )
    if allowed:
        yield
        return
    before = getattr(matmul, "fp32_precision", None)
    matmul.allow_tf32 = True
    try:
        yield
    finally:
        matmul.allow_tf32 = False
        if before is not None:  # "none" is what follows torch.backends.fp32_precision
            matmul.fp32_precision = before
