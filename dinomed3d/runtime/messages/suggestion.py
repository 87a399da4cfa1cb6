"""The known word that was probably meant by an unknown one. Imports nothing heavy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(words: Iterable[str], known: Iterable[str], *, closeness: float = 0.6) -> str:
    """The known word closest to each unknown one: `; did you mean --device?`.

    Args:
        words: that are not known.
        known: that could have been meant.
        closeness: how much of two words must agree, from 0 to 1.

    Returns:
        Empty if none is close.
    """
    spelled = {name.lower(): name for name in known}
    close = [
        spelled[match]
        for word in words
        for match in difflib.get_close_matches(word.lower(), spelled, 1, closeness)
    ]
    return f"; did you mean {' '.join(dict.fromkeys(close))}?" if close else ""
