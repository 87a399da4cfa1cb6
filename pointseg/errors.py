"""What goes wrong through no fault of the program, told to whoever called it."""

from __future__ import annotations


class UserError(ValueError):
    """Something its reader can mend: one sentence that says who, what it must be, what it was, what to do."""
