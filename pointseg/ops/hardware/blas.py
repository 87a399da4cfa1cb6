"""Which of the two libraries that torch has for float32 matrices is the faster one on this processor."""

from __future__ import annotations

from functools import cache

import torch

_ZEN_5 = 26
"""The family of AMD's processors whose vector units are 512 bits wide."""


@cache
def fills_vectors() -> bool:
    """Whether torch's BLAS is known to keep the whole vector unit busy, so that oneDNN is no faster.

    MKL uses 512 bits on Intel's processors alone, 256 on AMD's, which is all that those up to Zen 4 compute
    at a time. What processor this is, only Linux tells; elsewhere, and with another BLAS, the answer is no.
    """
    if not torch.backends.mkl.is_available():
        return False
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            entries = [line.partition(":") for line in file.read(4096).splitlines()]
    except (OSError, UnicodeDecodeError):
        return False
    found = {name.strip(): value.strip() for name, _, value in reversed(entries)}
    vendor, family = found.get("vendor_id"), found.get("cpu family", "")
    if vendor == "AuthenticAMD":
        return family.isdigit() and int(family) < _ZEN_5
    return vendor == "GenuineIntel"
