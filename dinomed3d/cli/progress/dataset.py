"""Progress of a dataset's check on stderr: what is read, and the time that is left."""

from __future__ import annotations

import sys
import time

from dinomed3d.cli.progress.time_left import duration


class DatasetProgress:
    """One line that is written over on a terminal, and a line now and then in a log."""

    def __init__(self) -> None:
        self.live = sys.stderr.isatty()
        self.what = ""
        self.started = self.shown = 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` cases are read."""
        now = time.monotonic()
        if what != self.what:
            self.what, self.started, self.shown = what, now, now
        if now - self.shown < (0.2 if self.live else 30) and (done < total or not self.live):
            return
        self.shown = now
        left_s = (now - self.started) / done * (total - done)
        left = f", about {duration(left_s)} left" if done < total else ""
        text = f"{what}: {done} of {total}{left}"
        if self.live:
            print(
                f"\r\x1b[K{text}" if done < total else "\r\x1b[K",
                end="",
                file=sys.stderr,
                flush=True,
            )
        else:
            print(text, file=sys.stderr, flush=True)
