"""What the machine can do at most: copies in memory, and matrix products in each precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from gpu_parts import Bench


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Whether products of float32 matrices may round their factors to TF32."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    torch.backends.cudnn.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def ceilings(bench: Bench) -> None:
    """Bandwidth of a copy (bytes read and written), and operations of square products a second."""
    gauge = bench.gauge
    bench.note("device", gauge.name)
    bench.attempt("machine", _machine)
    bench.note("copy TB/s", copied(bench))
    side = 32 if bench.tiny else 8192
    kinds = {
        "float32": (torch.float32, False),
        "TF32": (torch.float32, True),
        "bfloat16": (torch.bfloat16, False),
        "float16": (torch.float16, False),
    }
    for name, (dtype, rounded) in kinds.items():
        left, right = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))
        with tf32(rounded):
            seconds = gauge.milliseconds(lambda a=left, b=right: a @ b) / 1e3
        bench.note(f"{name} TFLOP/s", round(2 * side**3 / max(seconds, 1e-9) / 1e12, 3))


def copied(bench: Bench) -> float:
    """Bytes that a copy reads and writes in a second, 10^12 each."""
    size = 2**12 if bench.tiny else 2**31
    source = torch.empty(size, dtype=torch.uint8, device=bench.device)
    target = torch.empty_like(source)
    seconds = bench.gauge.milliseconds(lambda: target.copy_(source)) / 1e3
    return round(2 * size / max(seconds, 1e-9) / 1e12, 3)


def _machine() -> dict[str, object]:
    from command import machine  # needs psutil, which this part does not

    return machine("torch", "numpy")
