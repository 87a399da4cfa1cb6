"""What is wrong with a cloud's file, told to the person who has it."""

from __future__ import annotations

from pathlib import Path

from dinomed3d.runtime.errors import UserError


class CloudFileError(UserError):
    """A file that cannot be read or written: which, what is wrong with it, what to do."""

    def __init__(self, path: Path, wrong: str) -> None:
        super().__init__(f"{path}: {wrong}")
        self.path = path
        """The file."""
