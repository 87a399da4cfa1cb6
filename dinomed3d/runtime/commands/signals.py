"""Signals that ask a command to end are handled like Ctrl-C, so that it cleans up and stops its processes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
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


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _exchange(one: Handler, other: Handler) -> None:
    """Replace one handler by another, where it is set; only the main thread can."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) == one:
                signal.signal(number, other)
