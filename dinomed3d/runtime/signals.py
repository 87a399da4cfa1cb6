"""Signals that ask a command to end are handled like Ctrl-C, so that it cleans up and stops its processes."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def end_gently() -> None:
    """Handle the signals of schedulers and closing terminals as Ctrl-C."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)
