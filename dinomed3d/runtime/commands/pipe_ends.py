"""Pipes between processes, whose other end may be closed: what that is called differs between systems."""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

POLL_S = 0.5
"""Seconds between two looks at a pipe on Windows."""


def wait_for_hang_up(pipe: int) -> None:
    """Wait until nobody has the other end of a pipe open any more.

    Args:
        pipe: file descriptor of the end that is read; what still comes from it is lost.
    """
    if sys.platform == "win32":
        import _winapi
        import msvcrt

        # Nothing may wait in a read: Windows then keeps others from asking what the pipe is, as numerical libraries
        # do with their standard input when they are loaded (numpy issue 24290). They would hang with it.
        handle = msvcrt.get_osfhandle(pipe)
        with suppress(OSError):
            while True:
                _winapi.PeekNamedPipe(handle, 0)
                time.sleep(POLL_S)
    else:
        while os.read(pipe, 1):
            pass


@contextmanager
def unless_hung_up(*, windows: bool = os.name == "nt") -> Iterator[None]:
    """End the block quietly if it writes to a pipe that nobody reads any more.

    Args:
        windows: whether that may be called an invalid argument, as it is there.
    """
    try:
        yield
    except BrokenPipeError:
        pass
    except OSError as error:
        if not windows or error.errno != errno.EINVAL:
            raise
