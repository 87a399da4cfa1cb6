"""Recognises that the memory which processes share is full, behind the many errors that this causes.

Worker processes hand over arrays, and locks, in a small file system of the memory (/dev/shm on Linux). Containers
get 64 MB of it by default, and the error's number is the same whether a disk or shared memory is full.
"""

from __future__ import annotations

import errno
import re

_FULL = re.compile(
    r"shared memory ?\(shm\)|out of shared memory|killed by signal: Bus error|</?torch_\d+_\d+.*No space"
)
"""Words of PyTorch's errors."""
_LIBRARIES = ("multiprocessing.", "torch.multiprocessing", "torch.utils.data", "concurrent.futures")
"""Modules that share memory between processes."""
_REFUSED = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.ENOENT)


def explain_full_shared_memory(error: BaseException, *, alone: str) -> str | None:
    """What to do about an error, where it means that processes cannot share memory; else None.

    Args:
        error: of worker processes, or of starting them.
        alone: option with which the command starts none.
    """
    if not (_FULL.search(str(error)) or _of_a_lock(error)):
        return None
    return (
        "worker processes cannot share memory: /dev/shm is full, too small or not writable; use "
        f"{alone}, or give the container more (docker run --shm-size=2g)"
    )


def _of_a_lock(error: BaseException) -> bool:
    """Whether the system refused a lock or queue between processes: its error names no file."""
    if not isinstance(error, OSError) or error.filename or error.errno not in _REFUSED:
        return False
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "") if trace is not None else ""
    return f"{module}.".startswith(_LIBRARIES)
