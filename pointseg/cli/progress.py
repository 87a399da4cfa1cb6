"""Progress bars on stderr; in logs, a line now and then."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dinomed3d.runtime.messages.terminal_text import one_line

FORMAT = "{desc} {percentage:3.0f}%|{bar}| {elapsed} elapsed, {remaining} left"


class Bar:
    """Counts scenes or files, in fractions; where stderr is not a terminal, prints a line for each."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, done: float, total: int, name: str) -> None:
        """``done`` of ``total`` are finished; ``name``, if not empty, is started now.

        A name with a fraction goes on where an earlier run was stopped, which does not count in the time left.
        """
        if not sys.stderr.isatty():
            if name:
                print(one_line(f"[{int(done) + 1}/{total}] {name}"), file=sys.stderr, flush=True)
            return
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, file=sys.stderr, leave=False, bar_format=FORMAT)
        if name:
            name = one_line(name)
            self._bar.set_description_str(name if len(name) <= 32 else f"...{name[-29:]}", False)
        if name and done % 1:
            self._bar.initial += done - self._bar.n
        self._bar.n = done
        self._bar.refresh()

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if self._bar is not None:
            self._bar.clear()
        print(one_line(text), file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def bar() -> Iterator[Bar]:
    """A bar that is removed at the end, also after an error."""
    made = Bar()
    try:
        yield made
    finally:
        made.close()


class Counter:
    """Scenes of a preparation: finished, kept from before, and time left; in a log every 30 seconds."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None

    def __call__(self, done: int, kept: int, total: int) -> None:
        """``done`` of ``total`` are finished, ``kept`` of them by an earlier run."""
        if self._bar is None:
            from tqdm import tqdm

            interval = 0.2 if sys.stderr.isatty() else 30
            self._bar = tqdm(
                total=total, initial=kept, unit=self._unit, file=sys.stderr, mininterval=interval
            )
            if kept:
                self._bar.set_postfix_str(f"{kept} were ready before", refresh=False)
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """End the line."""
        if self._bar is not None:
            self._bar.close()


class Phases:
    """The steps of a run, one after the other, each with the time that it has left; in a log every 30 seconds."""

    def __init__(self) -> None:
        self._phase = ""
        self._bar: Any = None

    def __call__(self, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` of a step are finished."""
        if phase != self._phase:
            from tqdm import tqdm

            self.close()
            interval = 0.2 if sys.stderr.isatty() else 30
            self._phase = phase
            self._bar = tqdm(
                total=total, desc=phase, file=sys.stderr, mininterval=interval, leave=False,
                bar_format=FORMAT, delay=1 if sys.stderr.isatty() else 30,
            )  # fmt: skip
        self._bar.update(done - self._bar.n)

    def say(self, text: str) -> None:
        """Print a line of its own."""
        if self._bar is not None:
            self._bar.clear()
        print(one_line(text), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()
