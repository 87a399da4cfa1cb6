"""Sizes of the blocks of Triton kernels: a few candidates, of which the fastest is taken.

Candidates are timed for each pair of channels and each type when it first occurs, and the fastest is kept for the
process; Triton keeps compiled kernels on disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import triton
from triton.compiler.errors import CompilationError
from triton.runtime.errors import OutOfResources

log = logging.getLogger(__name__)

try:
    from triton.runtime.errors import PTXASError

    FAILURES: tuple[type[Exception], ...] = (CompilationError, OutOfResources, PTXASError)
except ImportError:  # earlier Tritons have none
    FAILURES = (CompilationError, OutOfResources)

_TIMED = 3
"""Launches that a candidate is timed over."""


@dataclass(frozen=True)
class Blocks:
    """Sizes of a kernel's blocks that do not change what it computes."""

    sizes: tuple[int, int]
    """Rows and output channels (``gather_multiply``), or input and output channels (``correlate``)."""
    warps: int
    stages: int


def multiply_candidates(out_width: int, dtype: torch.dtype) -> list[Blocks]:
    """To be timed; the first is what is taken where nothing can be."""
    whole = _padded(out_width)
    if dtype.itemsize > 2:
        found = [Blocks((64, min(64, whole)), 4, 3), Blocks((128, min(64, whole)), 8, 3)]
        return [*found, Blocks((64, min(32, whole)), 8, 3)]
    found = [Blocks((64, min(64, whole)), 4, 4), Blocks((128, min(64, whole)), 4, 3)]
    found += [Blocks((128, min(128, whole)), 8, 3)] if whole > 64 else []
    found += [Blocks((128, 32), 4, 4)] if out_width % 64 else []
    return list(dict.fromkeys(found))


def correlate_candidates(width: int, out_width: int, dtype: torch.dtype) -> list[Blocks]:
    """To be timed; the first is what is taken where nothing can be."""
    ins, outs = _padded(width), _padded(out_width)
    warps = 4 if dtype.itemsize == 2 else 8  # four would spill registers on an A100
    found = [
        Blocks((min(64, ins), min(64, outs)), warps, 3),
        Blocks((min(32, ins), min(64, outs)), 4, 4),
    ]
    if dtype.itemsize == 2 and max(ins, outs) > 64:
        found.append(Blocks((min(128, ins), min(128, outs)), 8, 3))
    return list(dict.fromkeys(found))


def block_of(width: int, dtype: torch.dtype) -> int:
    """Channels that are multiplied at a time: many, but few of them padding."""
    if dtype.itemsize > 2:
        return min(32, _padded(width))
    return 64 if width > 32 and -(-width // 32) % 2 == 0 else min(32, _padded(width))


def _padded(width: int) -> int:
    """A power of two; the least that tensor cores multiply is 16."""
    return max(16, 1 << (width - 1).bit_length())


_chosen: dict[tuple[object, ...], Blocks] = {}


def fastest(
    launch: Callable[[Blocks], None],
    key: tuple[object, ...],
    candidates: Sequence[Blocks],
    device: torch.device,
) -> None:
    """Launch with the fastest candidate, found when a key is first met."""
    if device.type != "cuda":
        launch(candidates[0])
        return
    key = (*key, device)
    with torch.cuda.device(device):
        if key not in _chosen:
            if not _chosen:
                log.warning(
                    "sparse convolution: compiling Triton kernels (%s) where a pair of channels is new, a few "
                    "seconds each; later runs find them on disk",
                    triton.__version__,
                )
            _chosen[key] = _timed(launch, candidates)
        launch(_chosen[key])


def _timed(launch: Callable[[Blocks], None], candidates: Sequence[Blocks]) -> Blocks:
    times: dict[Blocks, float] = {}
    failure: Exception | None = None
    for blocks in candidates:
        try:
            launch(blocks)
        except FAILURES as error:  # too large for this device
            failure = error
            continue
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(_TIMED):
            launch(blocks)
        end.record()
        end.synchronize()
        times[blocks] = start.elapsed_time(end)
    if not times:
        assert failure is not None
        raise failure
    return min(times, key=lambda blocks: times[blocks])
