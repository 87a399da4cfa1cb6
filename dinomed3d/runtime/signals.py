"""However a command is asked to end, it ends as on Ctrl-C: in order, with nothing left running."""

from __future__ import annotations

import signal
from types import FrameType
from typing import NoReturn


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def end_gently() -> None:
    """Take the signals that schedulers and closing terminals send for Ctrl-C."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)
