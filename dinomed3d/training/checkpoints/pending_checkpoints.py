"""Checkpoints that wait in memory until it is time to write them: large files, often out of date at once.

Each file is whole, with what is frozen: all of nnU-Net's commands read one file, and a second one could be lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dinomed3d.training.checkpoints.checkpoint import write_checkpoint


class PendingCheckpoints:
    """The newest content of each checkpoint file, and when files were last written."""

    def __init__(self, *, minutes: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing to write.

        Args:
            minutes: shortest time between two writings; 0 makes every one due at once.
            clock: seconds from any origin.
        """
        self._interval_s = 60 * minutes
        self._clock = clock
        self._written_at = clock()
        self._contents: dict[Path, Mapping[str, Any]] = {}

    def keep(self, path: Path, content: Mapping[str, Any]) -> None:
        """Let a content wait; it replaces what waits for the same file.

        Args:
            path: the file.
            content: of the checkpoint; it must not change any more (`snapshot`).
        """
        self._contents[path] = content

    def discard(self, path: Path) -> None:
        """Forget what waits for a file that will not be needed."""
        self._contents.pop(path, None)

    def is_due(self) -> bool:
        """Whether enough time has passed since files were last written."""
        return self._clock() - self._written_at >= self._interval_s

    def write(self) -> list[Path]:
        """Write what waits, and start the clock again.

        The best is written before the latest: otherwise a kill between the two would lose it, because
        a training continued from the latest takes it for written.

        Returns:
            The files.
        """
        paths = sorted(self._contents)  # checkpoint_best.pth, checkpoint_latest.pth
        for path in paths:
            write_checkpoint(self._contents[path], path)
            del self._contents[path]
        self._written_at = self._clock()
        return paths
