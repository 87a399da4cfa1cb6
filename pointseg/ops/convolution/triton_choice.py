"""Whether sparse convolutions use the Triton kernels.

They do for float32, float16 and bfloat16 on NVIDIA devices from Ampere on, where Triton is installed,
which comes with torch on Linux. ``POINTSEG_TRITON=0`` in the environment chooses the plain path instead, at any time.
Where Triton is there but fails, that is said once, and the plain path is taken from then on.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

SWITCH = "POINTSEG_TRITON"
"""Environment variable; ``0``: the plain path."""
_TYPES = (torch.float32, torch.float16, torch.bfloat16)
_CAPABILITY = (8, 0)
"""The first that multiplies bfloat16 and copies to shared memory while it computes."""

log = logging.getLogger(__name__)
_given_up: list[str] = []


def kernels_for(rows: Tensor) -> ModuleType | None:
    """``triton_launch`` if it can compute with such rows; None: the plain path is to be taken."""
    if rows.device.type != "cuda" or rows.dtype not in _TYPES:
        return None
    if os.environ.get(SWITCH) == "0" or _given_up or not _supported(rows.device):
        return None
    return _load()


def give_up(error: BaseException) -> None:
    """Take the plain path from now on, and say why."""
    if not _given_up:
        reason = f"{type(error).__name__}: {str(error).strip() or 'no reason given'}"
        _given_up.append(reason)
        log.warning(
            "sparse convolution: the Triton kernels failed and plain torch is used from now on, which is slower "
            "(%s=0 silences this): %s",
            SWITCH,
            " ".join(reason.split())[:500],
        )


@cache
def _supported(device: torch.device) -> bool:
    if torch.version.hip is not None or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= _CAPABILITY


@cache
def _load() -> ModuleType | None:
    """The module, once a small convolution has shown that this machine can compile it."""
    try:
        from pointseg.ops.convolution import triton_launch

        triton_launch.try_out()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - a missing compiler or driver, an older Triton, a read-only cache
        give_up(error)
        return None
    return triton_launch
