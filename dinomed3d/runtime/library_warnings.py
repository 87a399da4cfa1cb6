"""Warnings of libraries about their own code, which a user of a command can do nothing about."""

from __future__ import annotations

import warnings


def ignore_library_warnings() -> None:
    """Keep such warnings off the terminal, for the whole process."""
    # timm uses what the newest torch deprecates
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.jit")
