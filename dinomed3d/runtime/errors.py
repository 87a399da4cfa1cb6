"""Errors that a user of the package can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user can mend; the message says who, what, and what to do.

    The console command turns it into one line on stderr and exit code 2, without a traceback.
    """
