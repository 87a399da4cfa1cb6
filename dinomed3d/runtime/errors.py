"""Errors that a user can correct."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake that the user can correct; the message says where, what it must be, and what to do.

    The console command turns it into one line on stderr and exit code 2, without a traceback.
    """
