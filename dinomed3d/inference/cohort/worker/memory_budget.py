"""The memory that concurrent cases share."""

from __future__ import annotations

import threading


class MemoryBudget:
    """Admits cases, in order, as long as all running cases fit under the limit together."""

    def __init__(self, limit: int) -> None:
        """Start empty; `limit` is in bytes above the base of the process."""
        self.limit = limit
        self.used = 0
        self.closed = False
        self.changed = threading.Condition()

    def acquire(self, peak: int) -> None:
        """Wait until a case with this peak fits; a single one always does.

        Raises:
            InterruptedError: the budget was closed meanwhile.
        """
        with self.changed:
            self.changed.wait_for(
                lambda: self.closed or not self.used or self.used + peak <= self.limit
            )
            if self.closed:
                raise InterruptedError
            self.used += peak

    def release(self, peak: int) -> None:
        """Give back the memory of a case."""
        with self.changed:
            self.used -= peak
            self.changed.notify_all()

    def close(self) -> None:
        """Admit no further case."""
        with self.changed:
            self.closed = True
            self.changed.notify_all()
