"""Parallel loops on a CPU: each thread works on whole items, and torch's operations run in one thread.

Torch splits every operation among its threads and waits for all of them at its end. Where an item is
thousands of short operations, much of the time is that waiting, and nearly all of it on cores that
other programs use too.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import TypeVar

import torch

from dinomed3d.runtime.hardware.threads import single_threaded

MOST_THREADS = 16
"""With more threads than these, they mostly wait for the interpreter's lock."""

Item = TypeVar("Item")
Result = TypeVar("Result")

_turn = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def count_threads() -> int:
    """How many items ``for_each`` works on at a time."""
    return min(torch.get_num_threads(), MOST_THREADS) if _adjustable() else 1


def for_each(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Call ``work`` on every item, in as many threads as torch would use for one operation.

    There, each operation runs in the thread that calls it alone, and records no gradients. Within
    ``work``, or while another thread is in here, items are worked on one after another.

    Args:
        work: must not depend on the order of items; what it raises is raised here.
        items: of about the same size.

    Returns:
        What ``work`` made of each item, in order.
    """
    threads = count_threads()
    if threads < 2 or len(items) < 2 or not _turn.acquire(blocking=False):
        with torch.no_grad():
            return [work(item) for item in items]
    inference = torch.is_inference_mode_enabled()

    def alone(item: Item) -> Result:
        with torch.inference_mode(inference), torch.no_grad():
            return work(item)

    futures: list[Future[Result]] = []
    try:
        # the pool's threads take this number when they first run something, and then keep it
        with single_threaded():
            if threads not in _pools:
                _pools[threads] = ThreadPoolExecutor(threads, "pointseg")
                _pools[threads].submit(_outnumber_cores).result()
            futures += [_pools[threads].submit(alone, item) for item in items]
            wait(futures)
    finally:
        for future in futures:  # where it is interrupted
            future.cancel()
        _turn.release()
    return [future.result() for future in futures]


def _outnumber_cores() -> None:
    """Let torch's threads sleep while they wait, so that the pool's have the cores.

    They would spin for milliseconds after each operation. GNU's OpenMP lets them do so only as long
    as it has no more threads than there are cores: so this thread, which stays, has it start another.

    Source: the manual of libgomp, GOMP_SPINCOUNT.
    """
    torch.set_num_threads(2)
    torch.ones(2**18)  # filled by two threads
    torch.set_num_threads(1)


@cache
def _adjustable() -> bool:
    """Whether threads can differ in how many they use, as they can where OpenMP is behind torch."""
    return "parallel backend: OpenMP" in torch.__config__.parallel_info()


def _forget() -> None:
    """A forked process has none of its parent's threads, and nothing in it releases the lock."""
    global _turn
    _turn = threading.Lock()
    _pools.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
