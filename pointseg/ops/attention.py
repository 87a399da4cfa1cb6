"""Attention within windows: points in the order of a curve, cut into groups of K per cloud.

    cloud of 10 points, K = 4:    window 0: 0 1 2 3    window 1: 4 5 6 7    window 2: 6 7 8 9

The last window is completed by points of the one before it, which keep the results of their own
window: here 6 and 7 are borrowed. A cloud of fewer than K points is one short window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_PAIRS = 2**26
"""Scores (windows x heads x K x K) that are held at a time where they are computed explicitly."""


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
        full: list[Tensor] = []
        short: list[Tensor] = []
        borrowed: list[Tensor] = []
        slot = first = 0
        for count in counts:
            last, whole = first + count, count // size * size
            if count < size:
                if count:
                    short.append(torch.arange(first, last))
            else:
                full.append(torch.arange(first, first + whole))
                if count > whole:
                    full.append(torch.arange(last - size, last))
                    borrowed.append(torch.arange(slot + whole, slot + 2 * whole + size - count))
                slot += -(-count // size) * size
            first = last
        none = [torch.zeros(0, dtype=torch.int64)]
        rows, extra = torch.cat(full + short or none), torch.cat(borrowed or none)
        own = torch.ones(len(rows), dtype=torch.bool)
        own[extra] = False
        slots = torch.empty(first, dtype=torch.int64)
        slots[rows[own]] = own.nonzero()[:, 0]
        lengths = tuple(len(part) for part in short)
        return cls(rows.to(device), slots.to(device), extra.to(device), size, lengths)

    def along(self, order: Tensor) -> Windows:
        """The same windows for rows that are not sorted along the curve.

        Args:
            order: (N,) int64 rows sorted along the curve, cloud after cloud.
        """
        slots = torch.empty_like(self.slots)
        slots[order] = self.slots
        return replace(self, rows=order[self.rows], slots=slots)

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


Bias = Callable[[Tensor], Tensor]
"""(G, K, 3) voxel coordinates -> (G, heads, K, K) bias that is added to the scores."""


def attend(
    qkv: Tensor,
    windows: Windows,
    *,
    heads: int,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Multi-head attention within windows, by torch's fused kernels; memory linear in N.

    Args:
        qkv: (N, 3 C) queries, keys and values of each row side by side, each by head.
        windows: which rows attend to each other.
        heads: number of heads; divides C.
        scale: of the scores; None: one over the root of the channels per head.
        dropout: probability with which a weight is dropped; for training.

    Returns:
        (N, C).

    Raises:
        ValueError: channels that the heads do not divide, or another number of rows.
    """
    _check(qkv, windows, heads)
    parts = []
    for part in windows.split(windows.gather(qkv)):
        query, key, value = _by_head(part, heads)
        out = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)
        parts.append(out.transpose(1, 2).reshape(-1, qkv.shape[1] // 3))
    return windows.collect(torch.cat(parts) if len(parts) != 1 else parts[0])


def attend_explicitly(
    qkv: Tensor,
    windows: Windows,
    *,
    heads: int,
    scale: float | None = None,
    dropout: float = 0.0,
    bias: Bias | None = None,
    grid_coord: Tensor | None = None,
    upcast_attention: bool = False,
    upcast_softmax: bool = False,
) -> Tensor:
    """``attend`` with the scores at hand, for what fused kernels do not do.

    Args:
        qkv: as ``attend``.
        windows: as ``attend``.
        heads: as ``attend``.
        scale: as ``attend``.
        dropout: as ``attend``.
        bias: added to the scores; see ``RelativePositions``.
        grid_coord: (N, 3) int64 what the bias is given; needed with it.
        upcast_attention: whether scores are computed in float32.
        upcast_softmax: whether their softmax is.

    Returns:
        (N, C). Without gradients a bounded number of scores is held at a time.

    Raises:
        ValueError: as ``attend``; a bias without coordinates.
    """
    _check(qkv, windows, heads)
    if bias is not None and grid_coord is None:
        raise ValueError("attend_explicitly: 'grid_coord' must be given with 'bias'")
    channels = qkv.shape[1] // 3
    factor = (channels // heads) ** -0.5 if scale is None else scale
    places = None if grid_coord is None else windows.split(grid_coord[windows.rows])
    parts = []
    for number, window in enumerate(windows.split(windows.gather(qkv))):
        step = max(1, _PAIRS // (heads * window.shape[1] ** 2))
        for start in range(0, len(window), step):
            query, key, value = _by_head(window[start : start + step], heads)
            with torch.autocast(qkv.device.type, enabled=False):
                if upcast_attention:
                    query, key = query.float(), key.float()
                scores = (query * factor) @ key.transpose(-2, -1)
                if bias is not None and places is not None:
                    scores = scores + bias(places[number][start : start + step])
                if upcast_softmax:
                    scores = scores.float()
                weights = F.dropout(scores.softmax(-1), dropout).to(value.dtype)
                out = weights @ value
            parts.append(out.transpose(1, 2).reshape(-1, channels))
    return windows.collect(torch.cat(parts) if len(parts) != 1 else parts[0])


class RelativePositions(nn.Module):
    """A learned number per head for each distance along x, along y and along z; their sum is a bias.

    Source: Point Transformer V3, arXiv:2312.10035; the table is Pointcept's, ``rpe_table``.
    """

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        # A window of a solid block of points is as wide as the root of their number.
        self.reach = int((4 * window) ** (1 / 3) * 2)
        self.rpe_table = nn.Parameter(torch.empty(3 * (2 * self.reach + 1), heads))
        nn.init.trunc_normal_(self.rpe_table, std=0.02)

    def forward(self, grid_coord: Tensor) -> Tensor:
        """(G, K, 3) int64 voxels -> (G, heads, K, K) bias of query i and key j.

        Distances beyond ``reach`` voxels count as ``reach``.
        """
        distance = grid_coord[:, :, None] - grid_coord[:, None]
        row = distance.clamp_(-self.reach, self.reach).add_(self.reach)
        tables = self.rpe_table.view(3, 2 * self.reach + 1, -1)
        bias = sum(F.embedding(row[..., axis], tables[axis]) for axis in (1, 2))
        return (F.embedding(row[..., 0], tables[0]) + bias).permute(0, 3, 1, 2)


def _check(qkv: Tensor, windows: Windows, heads: int) -> None:
    if qkv.dim() != 2 or len(qkv) != len(windows.slots) or qkv.shape[1] % (3 * heads):
        raise ValueError(
            f"attend: 'qkv' must be ({len(windows.slots)}, 3 C) with C a multiple of {heads} heads, "
            f"got {tuple(qkv.shape)}"
        )


def _by_head(window: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """(G, K, 3 C) -> queries, keys, values, each (G, heads, K, C / heads); a view."""
    groups, size, channels = window.shape
    query, key, value = window.view(groups, size, 3, heads, channels // (3 * heads)).unbind(2)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


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
