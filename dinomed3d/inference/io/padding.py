"""Bytes behind the voxels of a file: padding, or the sign of a header that names a wrong shape or type."""

from __future__ import annotations

import math
from collections.abc import Sequence

from dinomed3d.inference.case import CaseError

_PADDING_BYTES = 4096
"""Fewer bytes than this behind the voxels can be padding to whole blocks of a disk or tape."""


def longest_padding(shape: Sequence[int], itemsize: int) -> int:
    """How many bytes behind the voxels cannot be voxels: a wrong shape or type leaves a whole plane at least.

    Args:
        shape: of the voxels, in any order of axes.
        itemsize: bytes of a voxel.
    """
    sides = [length for length in shape if length > 1] or [1]
    planes = [math.prod(sides) // length for length in sides]
    if len(sides) < 3:
        planes = sides
    return min(_PADDING_BYTES, min(planes) * itemsize) - 1


def too_long(name: str, shape: Sequence[int], kind: str, needed: int, more: str) -> CaseError:
    """The refusal of a file that holds more than its header says.

    Args:
        name: the file.
        shape: of its voxels, x first.
        kind: their type.
        needed: byte at which they end.
        more: how much follows.
    """
    return CaseError(
        f"{name}: is longer than its header says: {' x '.join(map(str, shape))} voxels of {kind} end at byte {needed}, "
        f"and it has {more}; its shape, data type or where its voxels begin is wrong, so its values would be, too: "
        "save it again"
    )
