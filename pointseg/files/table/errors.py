"""The error of files that hold clouds."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.runtime.errors import UserError

LONGEST, BEGINNING = 600, 450
"""Letters of a message: damaged headers have names without end, of which the first letters tell enough."""


class CloudFileError(UserError):
    """A file that cannot be read or written: the message names it, what is wrong and what to do."""

    def __init__(self, path: Path, wrong: str) -> None:
        if len(wrong) > LONGEST:
            wrong = f"{wrong[:BEGINNING]} ... {wrong[BEGINNING - LONGEST :]}"
        super().__init__(f"{path}: {wrong}")
        self.path = path
        """The file."""


def numpy_reason(error: ValueError) -> str:
    """What NumPy says of a malformed table of text, without its advice to programmers."""
    return str(error).partition("; use `usecols`")[0]
