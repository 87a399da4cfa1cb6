"""Numbers in messages: of things (1 case, 2 cases), and of sides (0.5 x 0.5 x 3)."""

from __future__ import annotations

from collections.abc import Collection, Iterable


def counted(number: int, thing: str) -> str:
    """A number with the singular or plural of a regular noun, which may have words in front of it.

    Examples:
        `(1, "DICOM file")` -> `"1 DICOM file"`; `(0, "case")` -> `"0 cases"`.
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def shortly(names: Collection[str], *, most: int = 6) -> str:
    """Names in a message: the first ones, and how many more there are.

    Examples:
        `("a", "b", "c")` -> `"a, b, c"`; with `most=2` `"a, b and 1 more"`.
    """
    shown, more = list(names)[:most], len(names) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def sides(values: Iterable[float]) -> str:
    """The lengths of the sides of a voxel, a patch or an image, in the order that is given.

    Examples:
        `(3.0, 0.5, 0.5)` -> `"3 x 0.5 x 0.5"`.
    """
    return " x ".join(f"{value:g}" for value in values)
