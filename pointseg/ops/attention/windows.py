"""Windows of points that follow each other along a curve: groups of K per cloud.

    cloud of 10 points, K = 4:    window 0: 0 1 2 3    window 1: 4 5 6 7    window 2: 6 7 8 9

The last window is completed by points of the one before it, which keep the results of their own
window: here 6 and 7 are borrowed. A cloud of fewer than K points is one short window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """Windows of rows: each of P slots holds a row; a borrowed row has a second slot."""

    rows: Tensor
    """(P,) int64 row in each slot: those of full windows first, then of the short ones."""
    slots: Tensor
    """(N,) int64 slot that holds each row in its own window."""
    borrowed: Tensor
    """(E,) int64 slots whose row is borrowed; no row is borrowed twice."""
    size: int
    """K, the number of slots of a full window."""
    short: tuple[int, ...]
    """The number of slots of each short window."""
    ends: Tensor
    """(G + 1,) int32, 0 and the slot that follows each window."""

    @classmethod
    def of(cls, counts: Sequence[int], size: int, device: torch.device | str = "cpu") -> Windows:
        """Cut clouds whose rows follow each other along the curve.

        Args:
            counts: rows of each cloud; may be 0.
            size: K, points per window.
            device: where the tensors are wanted.

        Raises:
            ValueError: a size below 1.

        Source: Point Transformer V3, arXiv:2312.10035, section 4.2.
        """
        if size < 1:
            raise ValueError(f"Windows: 'size' must be >= 1 point, got {size}")
        runs = [
            _Run(first, count, size) for first, count in zip(_starts(counts), counts, strict=True)
        ]
        full = [run for run in runs if run.count >= size]
        short = [run for run in runs if 0 < run.count < size]
        first = 0
        for run in (*full, *short):
            run.slot, first = first, first + run.slots
        slots, rows, borrowed = first, sum(counts), sum(run.borrowed for run in full)
        # Each of the three tensors counts on, but for jumps: the places that count on, and what is added to them.
        pieces = [piece for run in (*full, *short) for piece in run.rows_of_slots]
        pieces += [(count, jump - slots) for run in runs for count, jump in run.slots_of_rows]
        pieces += [
            (run.borrowed, run.slot + run.whole - start - slots - rows)
            for run, start in zip(full, _starts([run.borrowed for run in full]), strict=True)
        ]
        wide = (sum(run.slots for run in full)) // size
        ends = [*range(0, (wide + 1) * size, size)]
        for run in short:
            ends.append(ends[-1] + run.count)
        # one copy to the device, which does not wait
        flat = [value for piece in zip(*pieces, strict=True) for value in piece]
        table = torch.tensor(flat + ends).to(device, non_blocking=True)
        lengths, jumps = table[: 2 * len(pieces)].view(2, len(pieces))
        total = slots + rows + borrowed
        places = torch.arange(total, device=device)
        places += jumps.repeat_interleave(lengths, output_size=total)
        in_slots, of_rows, borrowing = places.split([slots, rows, borrowed])
        return cls(
            rows=in_slots,
            slots=of_rows,
            borrowed=borrowing,
            size=size,
            short=tuple(run.count for run in short),
            ends=table[2 * len(pieces) :].int(),
        )

    def along(self, order: Tensor) -> Windows:
        """The same windows for rows that are not sorted along the curve.

        Args:
            order: (N,) int64 rows sorted along the curve, cloud after cloud.
        """
        slots = torch.empty_like(self.slots)
        slots[order] = self.slots
        return replace(self, rows=order[self.rows], slots=slots)

    @property
    def longest(self) -> int:
        """Slots of the longest window; 0 where there is none."""
        is_full = len(self.rows) > sum(self.short)
        return self.size if is_full else max(self.short, default=0)

    @cached_property
    def borrowed_rows(self) -> Tensor:
        """(E,) int64 rows in the borrowed slots."""
        return self.rows[self.borrowed]

    def gather(self, values: Tensor) -> Tensor:
        """(N, C) rows -> (P, C) slots; the gradients of both slots of a borrowed row are added."""
        return _Gather.apply(values, self)  # type: ignore[no-any-return]

    def collect(self, values: Tensor) -> Tensor:
        """(P, C) slots -> (N, C) rows, each from its own window."""
        return _Collect.apply(values, self)  # type: ignore[no-any-return]

    def split(self, values: Tensor) -> list[Tensor]:
        """(P, ...) slots -> (G, K, ...) full windows, then (1, L, ...) for each short one."""
        whole = len(values) - sum(self.short)
        full, *short = values.split([whole, *self.short])
        windows = [full.view(whole // self.size, self.size, *values.shape[1:])] if whole else []
        return windows + [part[None] for part in short]


class _Run:
    """The rows of one cloud, which follow each other along the curve, and the slots that they have."""

    def __init__(self, first: int, count: int, size: int) -> None:
        self.first, self.count, self.slot = first, count, 0
        self.whole = count // size * size if count >= size else count
        """Rows in windows that need not be completed."""
        self.borrowed = 0 if count == self.whole else self.whole + size - count
        self.slots = count + self.borrowed

    @property
    def rows_of_slots(self) -> list[tuple[int, int]]:
        """Pieces of slots: how many, and what to add to a slot to have its row."""
        jump = self.first - self.slot
        return [(self.whole, jump), (self.slots - self.whole, jump - self.borrowed)]

    @property
    def slots_of_rows(self) -> list[tuple[int, int]]:
        """Pieces of rows: how many, and what to add to a row to have its slot."""
        jump = self.slot - self.first
        return [(self.whole, jump), (self.count - self.whole, jump + self.borrowed)]


def _starts(counts: Sequence[int]) -> list[int]:
    """Sums of the counts before each."""
    return list(accumulate(counts, initial=0))[:-1]


class _Gather(torch.autograd.Function):
    """Rows to slots. Its gradient is gathered, but for the few borrowed rows."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, windows: Windows) -> Tensor:
        ctx.windows = windows
        return values.index_select(0, windows.rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        windows: Windows = ctx.windows
        out = grad.index_select(0, windows.slots)
        if len(windows.borrowed):
            # no row twice: plain assignment, the same each time
            rows = windows.borrowed_rows
            out[rows] += grad.index_select(0, windows.borrowed)
        return out, None


class _Collect(torch.autograd.Function):
    """Slots to rows; what borrowed slots hold is dropped."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, windows: Windows) -> Tensor:
        ctx.windows = windows
        return values.index_select(0, windows.slots)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        windows: Windows = ctx.windows
        out = grad.index_select(0, windows.rows)
        if len(windows.borrowed):
            out[windows.borrowed] = 0
        return out, None
