"""Multi-head attention within windows of points, by fused kernels or with the scores in memory."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pointseg.ops.attention import fused_kernels
from pointseg.ops.attention.relative_positions import RelativePositions, attend_relatively
from pointseg.ops.attention.windows import Windows

_PAIRS = 2**26
"""Scores (windows x heads x K x K) that are held at a time where they are computed explicitly."""


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
    width = qkv.shape[1] // (3 * heads)
    added = fused_kernels.padding(qkv, width)
    by_head = windows.gather(qkv).view(-1, 3, heads, width)
    if added:
        by_head = F.pad(by_head, (0, added))
        scale = width**-0.5 if scale is None else scale
    varlen = fused_kernels.varlen(qkv, width + added, dropout=dropout)
    if varlen is not None:
        longest = windows.longest
        out = varlen(
            *by_head.unbind(1),
            windows.ends,
            windows.ends,
            longest,
            longest,
            scale=scale,
            window_size=fused_kernels.varlen_window(width + added, longest),
        )
    else:
        with fused_kernels.fused_backends(qkv, width + added):
            out = _attend_by_kind(by_head, windows, scale, dropout)
    return windows.collect(out[..., :width].reshape(-1, heads * width))


def _attend_by_kind(
    by_head: Tensor, windows: Windows, scale: float | None, dropout: float
) -> Tensor:
    """(P, 3, heads, C / heads) -> (P, heads, C / heads): a call for full windows, one for each short one."""
    parts = []
    for part in windows.split(by_head):
        query, key, value = part.permute(2, 0, 3, 1, 4).unbind(0)  # (G, heads, K, C / heads)
        out = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, scale=scale)
        parts.append(out.transpose(1, 2).flatten(0, 1))
    return torch.cat(parts) if len(parts) != 1 else parts[0]


def attend_explicitly(
    qkv: Tensor,
    windows: Windows,
    *,
    heads: int,
    scale: float | None = None,
    dropout: float = 0.0,
    bias: RelativePositions | None = None,
    grid_coord: Tensor | None = None,
    upcast_attention: bool = False,
    upcast_softmax: bool = False,
) -> Tensor:
    """``attend`` with the scores in memory, for what fused kernels do not do.

    Args:
        qkv: as ``attend``.
        windows: as ``attend``.
        heads: as ``attend``.
        scale: as ``attend``.
        dropout: as ``attend``.
        bias: added to the scores.
        grid_coord: (N, 3) int64 what the bias is given; needed with it.
        upcast_attention: whether scores are computed in float32.
        upcast_softmax: whether their softmax is.

    Returns:
        (N, C). Without gradients a bounded number of scores is held at a time, and on CUDA none where kernels
        compute all that is asked for: they have scores and softmax in float32 always.

    Raises:
        ValueError: as ``attend``; a bias without coordinates.
    """
    _check(qkv, windows, heads)
    if bias is not None and grid_coord is None:
        raise ValueError("attend_explicitly: 'grid_coord' must be given with 'bias'")
    channels = qkv.shape[1] // 3
    if bias is None and qkv.device.type == "cuda":
        return attend(qkv, windows, heads=heads, scale=scale, dropout=dropout)
    factor = (channels // heads) ** -0.5 if scale is None else scale
    places = None if grid_coord is None else windows.split(grid_coord[windows.rows])
    if bias is not None and places is not None and fused_kernels.has_flex(qkv, dropout=dropout):
        return attend_relatively(qkv, windows, heads=heads, scale=factor, bias=bias, places=places)
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
