"""Sparse convolution by the kernels of ``triton_kernels``: what is launched, and into how many sums one is split.

Blocks of the summed axis and the number of splits follow from shapes and device alone, so that the order of sums is
the same in every run; the other sizes are those that ``triton_blocks`` finds to be fastest.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from pointseg.ops.convolution import triton_kernels as kernels
from pointseg.ops.convolution.masked_tiles import TILE, MaskedTiles
from pointseg.ops.convolution.triton_blocks import (
    FAILURES,
    Blocks,
    block_of,
    correlate_candidates,
    fastest,
    multiply_candidates,
)
from pointseg.ops.convolution.triton_tiles import masked_tiles

__all__ = ["FAILURES", "masked_tiles", "multiply", "try_out", "weight_gradient"]
"""What is asked of the module that ``triton_choice`` gives."""

_WAVES = 2
"""Programs that each multiprocessor should have, at least; sums are split until it has. Gradients of weights are
split into twice as many, because some offsets have many more pairs than others."""
_MOST_SPLITS = 32


def multiply(
    rows: Tensor, weight: Tensor, bias: Tensor | None, tiles: MaskedTiles, targets: int
) -> Tensor:
    """Convolve, (S, C) with (K, D, C) -> (T, D) in the rows' type, summed in float32.

    Args:
        rows: of the sources.
        weight: of each offset, in the rows' type; any strides.
        bias: (D,) added to every target before rounding, in any type.
        tiles: which rows are read.
        targets: T.
    """
    rows = rows.contiguous()
    size, out_width, width = weight.shape
    blocks = -(-width // block_of(width, rows.dtype))
    programs = -(-targets // 64) * -(-out_width // 64)
    splits = _splits(programs, size * blocks // 8, rows.device)
    wide = torch.promote_types(rows.dtype, torch.float32)
    if splits > 1:
        out = rows.new_empty(splits, targets, out_width, dtype=wide)
    else:
        out = rows.new_empty(targets, out_width)
    if targets:
        added = bias if splits == 1 else None
        _launch_multiply(rows, weight, added, tiles, out, targets, splits)
    if splits == 1:
        return out
    summed = out.sum(0)
    return (summed if bias is None else summed + bias).to(rows.dtype)


def _launch_multiply(
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tiles: MaskedTiles,
    out: Tensor,
    targets: int,
    splits: int,
) -> None:
    size, out_width, width = weight.shape

    def launch(blocks: Blocks) -> None:
        block_rows, block_out = blocks.sizes
        grid = (-(-targets // block_rows) * -(-out_width // block_out), splits)
        kernels.gather_multiply[grid](
            rows,
            weight,
            bias,
            out,
            tiles.order,
            tiles.sources,
            tiles.needed,
            tiles.counts,
            targets,
            tiles.sources.shape[1],
            weight.stride(0),
            weight.stride(2),
            weight.stride(1),
            splits,
            **multiply_constants(size, width, out_width, rows.dtype),
            MIRRORED=tiles.mirrored,
            WIDEN=rows.device.type == "cpu",
            BIAS=bias is not None,
            BLOCK_ROWS=block_rows,
            BLOCK_OUT=block_out,
            num_warps=blocks.warps,
            num_stages=blocks.stages,
        )

    key = (
        "multiply",
        size,
        width,
        out_width,
        rows.dtype,
        weight.stride(2) == 1,
        _precision(rows.dtype),
    )
    fastest(launch, key, multiply_candidates(out_width, rows.dtype), rows.device)


def weight_gradient(feat: Tensor, grad: Tensor, tiles: MaskedTiles) -> Tensor:
    """(S, C) and (T, D) -> (K, D, C) in their type, summed in float32; in memory as the parameter is."""
    feat, grad = feat.contiguous(), grad.contiguous()
    size, width = len(tiles.sources), feat.shape[1]
    out_width = grad.shape[1]
    programs = size * -(-width // 64) * -(-out_width // 64)
    splits = _splits(programs // 2, len(tiles.counts), feat.device)
    wide = torch.promote_types(feat.dtype, torch.float32)
    sums = feat.new_empty(splits, out_width, size, width, dtype=wide)
    if not len(grad):  # there is no tile to read
        return feat.new_zeros(size, out_width, width)

    def launch(blocks: Blocks) -> None:
        block_in, block_out = blocks.sizes
        grid = (-(-width // block_in) * -(-out_width // block_out), size, splits)
        kernels.correlate[grid](
            feat,
            grad,
            sums,
            tiles.order,
            tiles.sources,
            tiles.needing,
            tiles.tile_counts,
            tiles.sources.shape[1],
            len(tiles.counts),
            splits,
            **correlate_constants(size, width, out_width, feat.dtype),
            MIRRORED=tiles.mirrored,
            WIDEN=feat.device.type == "cpu",
            BLOCK_IN=block_in,
            BLOCK_OUT=block_out,
            num_warps=blocks.warps,
            num_stages=blocks.stages,
        )

    key = ("correlate", size, width, out_width, feat.dtype, _precision(feat.dtype))
    fastest(launch, key, correlate_candidates(width, out_width, feat.dtype), feat.device)
    return (sums[0] if splits == 1 else sums.sum(0)).to(feat.dtype).transpose(0, 1)


def try_out() -> None:
    """Raise what compiling and launching raise on this machine: a convolution of one row by one offset."""
    rows = torch.ones(1, 16, device="cuda", dtype=torch.float16)
    tiles = masked_tiles(torch.zeros(1, 1, device="cuda", dtype=torch.int32))
    found = multiply(rows, rows.new_ones(1, 16, 16), None, tiles, 1)
    if not bool((found == 16).all()):
        raise RuntimeError(f"a row of sixteen ones times ones gave {found.flatten().tolist()}")


def multiply_constants(size: int, width: int, out_width: int, dtype: torch.dtype) -> dict[str, Any]:
    """What ``gather_multiply`` is compiled for, apart from its blocks."""
    return {
        "SIZE": size,
        "IN": width,
        "OUT": out_width,
        "TILE": TILE,
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": _precision(dtype),
        "BLOCK_IN": block_of(width, dtype),
    }


def correlate_constants(
    size: int, width: int, out_width: int, dtype: torch.dtype
) -> dict[str, Any]:
    """What ``correlate`` is compiled for, apart from its blocks."""
    return {
        "SIZE": size,
        "IN": width,
        "OUT": out_width,
        "TILE": TILE,
        "SUM": tl.float64 if dtype == torch.float64 else tl.float32,
        "PRECISION": _precision(dtype),
        "BLOCK_ROWS": 64 if dtype.itemsize == 2 else 32,
    }


def _precision(dtype: torch.dtype) -> str:
    """Whether float32 may be multiplied as TF32, by torch's setting for matrix products."""
    if dtype != torch.float32:
        return "ieee"
    matmul = torch.backends.cuda.matmul
    # the newer setting answers for the older one too, but not the other way round
    chosen = getattr(matmul, "fp32_precision", None)
    allowed = matmul.allow_tf32 if chosen is None else chosen == "tf32"
    return "tf32" if allowed else "ieee"


def _splits(programs: int, steps: int, device: torch.device) -> int:
    """Into how many sums one is split, a power of two: until the device is full, or little is left to each."""
    splits = 1
    while 2 * splits <= min(steps, _MOST_SPLITS) and programs * splits < _WAVES * _processors(
        device
    ):
        splits *= 2
    return splits


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":  # the interpreter's
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
