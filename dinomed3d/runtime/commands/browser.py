"""Whether this computer can show a page to somebody who sits at it."""

from __future__ import annotations

import os
import sys


def can_open_browser() -> bool:
    """Whether a browser could open here, and not in the terminal or on a computer that nobody sits at."""
    if "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform in ("win32", "darwin"):
        return True
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
