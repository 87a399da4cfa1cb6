"""Warnings of libraries about their own code, which a user of a command can do nothing about."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_timm() -> Iterator[None]:
    """Ignore, while timm is imported, that the newest torch deprecates the ``torch.jit`` that timm uses.

    Only this warning, and only here: nnU-Net's commands import our classes as well, and there all other
    warnings, also those of torch.jit about a user's own code, are none of ours to hide.
    """
    with warnings.catch_warnings():
        for category in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("ignore", r"`torch\.jit\.", category, r"torch\.jit")
        yield
