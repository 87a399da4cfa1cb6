"""Text of a cell of a table that a spreadsheet will open."""

from __future__ import annotations

import math


def cell(value: object) -> str:
    """Text of a cell; what a spreadsheet would run as a formula gets an apostrophe before it.

    Source: OWASP, CSV injection.
    """
    if value is None or isinstance(value, float) and not math.isfinite(value):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.1f}"
    text = str(value)
    formula = text[:1] in ("\t", "\r", "\n") or text.lstrip().startswith(("=", "+", "-", "@", "＝"))
    return f"'{text}" if formula and isinstance(value, str) else text
