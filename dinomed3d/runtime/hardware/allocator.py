"""What the C library does with freed memory: the working process keeps it for the next window.

By default glibc gives large blocks back to the system as soon as they are freed. The next window then gets fresh
pages, which the system zeroes one by one: on a CPU about as much work as the arithmetic of a small network.
"""

from __future__ import annotations

import ctypes

KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",  # no block is mapped by itself
    "MALLOC_TRIM_THRESHOLD_": str(2**32),  # bytes that are kept
    "MALLOC_ARENA_MAX": "1",  # all threads share what is kept
}
"""Environment of a process whose allocator keeps freed memory; read by glibc alone, when a process starts.

Source: mallopt(3).
"""


def give_back_freed() -> None:
    """Give kept memory back to the system once, so that what a process really needs can be measured."""
    trim = getattr(ctypes.pythonapi, "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
