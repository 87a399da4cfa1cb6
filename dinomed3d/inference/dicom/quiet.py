"""Silences the warnings of pydicom, highdicom and ITK about unusual values on stderr."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_lock = threading.Lock()
_users = 0
_restore = ExitStack()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Silence warnings of the libraries, in any number of threads; errors are raised all the same."""
    global _users
    with _lock:
        if _users == 0:
            _silence()
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                _restore.close()


def _silence() -> None:
    _restore.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    if "SimpleITK" in sys.modules:  # headers are read without it
        process = sys.modules["SimpleITK"].ProcessObject
        _restore.callback(process.SetGlobalWarningDisplay, process.GetGlobalWarningDisplay())
        process.SetGlobalWarningDisplay(False)
