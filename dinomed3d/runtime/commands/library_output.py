"""What libraries print on their own, where we say ourselves what a user should know."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what is printed in the block, on stdout and stderr."""
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        yield
