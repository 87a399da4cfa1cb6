"""Signals that ask a command to end are handled like Ctrl-C, so that it cleans up and stops its processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""What schedulers and closing terminals send; Windows has SIGTERM alone."""
Handler = Callable[[int, FrameType | None], object] | signal.Handlers
_is_registered = False


def end_gently() -> None:
    """Handle the signals of schedulers and closing terminals as Ctrl-C, in this process alone.

    Processes that are forked from it end at once on these signals, as without this call. A handler
    written in Python would be inherited, and Python forgets a signal that arrives while a process is
    being forked: a pool of processes that is ended right after its start (nnU-Net makes such) would
    then wait for one of them forever.
    """
    global _is_registered
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    if not _is_registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(
            before=lambda: _exchange(_interrupt, signal.SIG_DFL),
            after_in_parent=lambda: _exchange(signal.SIG_DFL, _interrupt),
        )
        _is_registered = True


@contextmanager
def kept_handlers() -> Iterator[None]:
    """Take back the signal handlers that a library sets while it starts.

    Such a handler would stay after the library has ended, in place of the program's own, and each
    process that is forked later would inherit it (see end_gently for what that does to a pool).
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                if handler is not None and signal.getsignal(number) != handler:
                    signal.signal(number, handler)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _exchange(one: Handler, other: Handler) -> None:
    """Replace one handler by another, where it is set; only the main thread can."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) == one:
                signal.signal(number, other)
