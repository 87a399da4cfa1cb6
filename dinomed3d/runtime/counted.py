"""Numbers of things in messages: 1 case, 2 cases."""

from __future__ import annotations


def counted(number: int, thing: str) -> str:
    """A number with the singular or plural of a regular noun, which may have words in front of it.

    Examples:
        `(1, "DICOM file")` -> `"1 DICOM file"`; `(0, "case")` -> `"0 cases"`.
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
