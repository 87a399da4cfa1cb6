"""A bar on stderr that says how much is done and how long the rest will take."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Bar:
    """Counts scenes or files in fractions; where stderr is no terminal, a line for each."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __call__(self, done: float, total: int, name: str) -> None:
        """So many of ``total`` are done; ``name``, if any, is begun now."""
        if not sys.stderr.isatty():
            if name:
                print(f"[{int(done) + 1}/{total}] {name}", file=sys.stderr, flush=True)
            return
        if self._bar is None:
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
            self._bar = tqdm(total=total, file=sys.stderr, leave=False, bar_format=form)
        if name:
            self._bar.set_description_str(name if len(name) <= 32 else f"...{name[-29:]}", False)
        self._bar.n = done
        self._bar.refresh()

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.clear()
        print(text, file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def bar() -> Iterator[Bar]:
    """A bar that is taken away in the end, however it ends."""
    made = Bar()
    try:
        yield made
    finally:
        made.close()
