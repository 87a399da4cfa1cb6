"""Torch's own threads stand back while a program's threads compute."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_inside = 0
_threads = 1


@contextmanager
def single_threaded() -> Iterator[int]:
    """Let each of torch's operations run in the thread that calls it alone, until the block ends.

    Several threads may be in here at a time. A thread that uses torch for the first time takes the number that
    another one has set last: while one is in here, what another finds is not the number to go back to.

    Yields:
        How many threads torch uses otherwise.
    """
    global _inside, _threads
    import torch

    with _lock:
        if _inside == 0:
            _threads = torch.get_num_threads()
        _inside += 1
        before = _threads
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        with _lock:
            _inside -= 1
        torch.set_num_threads(before)


def _forget() -> None:
    """In a forked process no other thread is in here, and nothing releases the lock."""
    global _lock, _inside
    _lock, _inside = threading.Lock(), 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
