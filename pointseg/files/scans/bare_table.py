"""Tables of numbers without a header: how many columns of which type they have, weighed by the values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTHS = range(3, 17)
"""Columns that a table may have; 3 to 6 are usual, more have colours, normals or several labels."""
CHUNK = 50_000
"""Bytes that are looked at in one place, a multiple of 8."""
PLACES = 4
"""Places of a file that are looked at."""
BINS = 32
"""Parts of the range of all values, each with as many values."""
FEW_VALUES = 400
"""Fewer say nothing about columns."""
INFORMATION = 0.25
"""Bits that a column tells of its values, from which on columns differ."""
MORE = 0.03
"""Bits by which a multiple of a width must tell more to be another table than one of shorter rows."""
TURNS = 0.72
"""Part of the bits of longer rows that a width must tell where these are whole rows of it: scanners whose beams take
turns are 0.75, scans read as half of their columns 0.7 at most."""
MORE_TURNS = 0.55
"""The same where they are three rows or more: scanners are 0.69, scans read as a third or a quarter 0.5 at most."""
ODD = 0.05
"""Share of values of no plausible size from which on another type is more likely."""
TYPES = {"<f4": "float32", "<f8": "float64"}


class TableForm(NamedTuple):
    """How a table lies in a file."""

    width: int
    """Columns."""
    kind: str
    """Type of the values, one of ``TYPES``."""

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return self.width * int(self.kind[-1])

    def __str__(self) -> str:
        return f"{self.width} columns of {TYPES[self.kind]}"


class Weighed(NamedTuple):
    """What the values of a table say about its form."""

    kind: str
    """The more plausible type."""
    bits: dict[TableForm, float]
    """How much a value's column tells of it, for the forms of which the file holds whole rows; empty: it is too
    small, or its columns do not differ."""

    @property
    def best(self) -> TableForm | None:
        """The form that fits best; None: the values do not say."""
        if not self.bits:
            return None
        most = max(self.bits.values())
        return min(form for form, found in self.bits.items() if found >= 0.8 * most)

    def fits(self, form: TableForm) -> bool:
        """Whether a form is of the more plausible type, and as likely as any if the values say that."""
        best, bits = self.best, self.bits
        if form.kind != self.kind or best is None or form == best:
            return form.kind == self.kind
        holds_several = form.width % best.width == 0  # points in a row, unless these differ
        rows, rest = divmod(best.width, form.width)
        part = 0.5 if rest or rows == 0 else TURNS if rows == 2 else MORE_TURNS
        least = bits[best] + MORE if holds_several else part * bits[best]
        return bits.get(form, 0.0) >= least


def weigh(path: Path) -> Weighed:
    """Weigh the forms that a table may have.

    A value tells its column where columns differ: heights are smaller than distances, intensities are positive. In
    rows of a wrong width each column holds values of all, which tell nothing. So the mutual information of column
    and value is greatest for the right width; multiples of it have the same, of which the smallest is taken.

    Args:
        path: the file.
    """
    size = path.stat().st_size
    is_large = size > PLACES * CHUNK
    starts = [size // PLACES * place // 8 * 8 for place in range(PLACES if is_large else 1)]
    with open(path, "rb") as stream:
        parts = []
        for start in starts:
            stream.seek(start)
            part = stream.read(CHUNK if is_large else size)
            parts.append(part[: len(part) // 8 * 8])
    data = b"".join(parts)
    kind = _kind(data) if data else "<f4"
    values = np.frombuffer(data, kind)
    if len(values) < FEW_VALUES:
        return Weighed(kind, {})
    bins = _bins(values)
    number = int(kind[-1])
    place = np.concatenate(
        [
            np.arange(len(part) // number) + at // number
            for at, part in zip(starts, parts, strict=True)
        ]
    )
    forms = [TableForm(width, kind) for width in WIDTHS]
    found = {
        form: _bits(bins, place % form.width, form.width)
        for form in forms
        if size % form.row_bytes == 0
    }
    return Weighed(kind, found if max(found.values(), default=0) > INFORMATION else {})


def _kind(data: bytes) -> str:
    """The type of which more values have a plausible size; float32 if both do."""
    halves = np.frombuffer(data, "<u4").reshape(-1, 2)
    if len(halves) >= FEW_VALUES and not halves[:, 0].any() and halves[:, 1].any():
        return "<f8"  # whole numbers and quarters, whose lower halves are 0
    single, double = (_odd(np.frombuffer(data, kind)) for kind in TYPES)
    return "<f8" if single > ODD and double < single else "<f4"


def _odd(values: NDArray[np.floating]) -> float:
    """Share of values that no scan has."""
    with np.errstate(invalid="ignore", over="ignore"):
        size = np.abs(values)
        return float(np.mean(np.isinf(size) | (size > 1e8) | ((size > 0) & (size < 1e-12))))


def _bins(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """The part of the range that each value lies in."""
    numbers = np.nan_to_num(values.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    ranks = np.linspace(0, len(numbers) - 1, BINS + 1)[1:-1].astype(int)
    edges = np.unique(np.partition(numbers, ranks)[ranks])
    return np.searchsorted(edges, numbers, side="right")


def _bits(bins: NDArray[np.int64], columns: NDArray[np.int64], width: int) -> float:
    """Mutual information of column and bin, less what chance gives, in bits."""
    counts = np.bincount(bins * width + columns, minlength=BINS * width)
    share = counts.reshape(-1, width) / len(bins)
    apart = share.sum(0, keepdims=True) * share.sum(1, keepdims=True)
    filled = share > 0
    found = float((share[filled] * np.log2(share[filled] / apart[filled])).sum())
    used = int(np.count_nonzero(share.any(1)))
    return found - (width - 1) * (used - 1) / (2 * math.log(2) * len(bins))
