"""Whether somebody sits in front of this computer."""

from __future__ import annotations

import os
import sys


def has_screen() -> bool:
    """Whether a browser could open here, and not in the terminal or on a computer that nobody sits at."""
    if "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
