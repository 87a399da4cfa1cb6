"""Space-filling curves: one integer per voxel; voxels with close integers are close in space.

Both curves halve the cube again and again and append three bits per halving, the coarsest first;
``code >> 3`` is therefore the cell of twice the side that holds a voxel, whichever the curve. Along
the z curve (Morton) the bits are those of x, y and z; along Hilbert's curve consecutive voxels share
a face. The bits of the batch number are above those of the code, so that sorting keeps clouds apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

ORDERS = ("z", "z-trans", "hilbert", "hilbert-trans")
"""The curves; in "trans" the axes x and y are swapped."""
MAX_DEPTH = 16
"""Bits of a voxel coordinate."""

_LEVELS = 3  # halvings per look-up: 9 bits at a time keep the tables within the first-level cache


def encode(
    grid_coord: Tensor,
    batch: Tensor,
    depth: int,
    orders: Sequence[str] = ORDERS,
    *,
    extent: Sequence[int] | None = None,
) -> Tensor:
    """The place of each voxel along several curves, all voxels of a cloud before those of the next.

    Args:
        grid_coord: (N, 3) int64 voxel coordinates, in 0 to 2^depth - 1.
        batch: (N,) int64 number of the cloud that each voxel is of.
        depth: halvings of the cube, 0 to 16.
        orders: the O curves, of ``ORDERS``; they share most of the work.
        extent: clouds, and cells along x, y and z, of voxels that are known to be right; None: the host
            reads the voxels' bounds, and so waits for the device.

    Returns:
        (O, N) int64: ``batch << 3 * depth | code``.

    Raises:
        ValueError: an unknown order; a depth, coordinates or batch numbers that do not fit.

    Source: Skilling 2004, AIP Conf. Proc. 707, 381 (Hilbert); bit and axis order as Point
    Transformer V3, arXiv:2312.10035.
    """
    for order in orders:
        if order not in ORDERS:
            raise ValueError(f"encode: 'orders' must be of {', '.join(ORDERS)}, got {order!r}")
    if not 0 <= depth <= MAX_DEPTH:
        raise ValueError(f"encode: 'depth' must be 0 to {MAX_DEPTH}, got {depth}")
    if grid_coord.dim() != 2 or grid_coord.shape[1] != 3 or grid_coord.dtype != torch.int64:
        raise ValueError(
            f"encode: 'grid_coord' must be (N, 3) int64, got {tuple(grid_coord.shape)} {grid_coord.dtype}"
        )
    if len(grid_coord):
        _check_fits(_bounds(grid_coord, batch) if extent is None else _within(extent), depth)
    x, y, z = (_spread(axis, depth) for axis in grid_coord.T.contiguous())
    interleaved = {"": x << 2 | y << 1 | z, "-trans": y << 2 | x << 1 | z}
    above = batch << 3 * depth
    codes = []
    for order in orders:
        curve, trans, _ = order.partition("-trans")
        code = interleaved[trans]
        codes.append(above | (_along_hilbert(code, depth) if curve == "hilbert" else code))
    return torch.stack(codes)


def _bounds(grid_coord: Tensor, batch: Tensor) -> Sequence[int]:
    """The smallest and largest coordinate, the first and last number of a cloud."""
    bounds: list[int] = torch.stack([*grid_coord.aminmax(), *batch.aminmax()]).tolist()
    return bounds


def _within(extent: Sequence[int]) -> Sequence[int]:
    clouds, *sides = extent
    return 0, max(sides) - 1, 0, clouds - 1


def _check_fits(bounds: Sequence[int], depth: int) -> None:
    low, high, first, last = bounds
    if low < 0 or high >> depth:
        raise ValueError(
            f"encode: 'grid_coord' must be in 0 to {2**depth - 1} at depth {depth}, got {low} to {high}"
        )
    if first < 0 or last.bit_length() + 3 * depth > 63:
        raise ValueError(
            f"encode: 'batch' must be in 0 to {2 ** (63 - 3 * depth) - 1} at depth {depth}, "
            f"got {first} to {last}"
        )


def _spread(values: Tensor, depth: int) -> Tensor:
    """Bit i of each number moves to bit 3 i."""
    table = _spread_table(values.device)
    spread = table.index_select(0, values & 255)
    return spread | table.index_select(0, values >> 8) << 24 if depth > 8 else spread


def _along_hilbert(code: Tensor, depth: int) -> Tensor:
    """From places along the z curve to those along Hilbert's, going down the halvings of the cube.

    A state says how the curve lies in the current cell. Entries of the tables are
    ``next state << 3 * levels | bits``.
    """
    tables = _tables(code.device)
    walked = torch.zeros_like(code)
    state = torch.zeros_like(code)
    below = depth
    while below:
        levels = min(below, _LEVELS)
        below -= levels
        bits = 3 * levels
        entry = tables[levels - 1].index_select(
            0, state << bits | code >> 3 * below & ((1 << bits) - 1)
        )
        walked = walked << bits | entry & ((1 << bits) - 1)
        state = entry >> bits
    return walked


@lru_cache(maxsize=8)
def _spread_table(device: torch.device) -> Tensor:
    values = torch.arange(256)
    return sum(((values >> i & 1) << 3 * i for i in range(8)), torch.zeros_like(values)).to(device)


@lru_cache(maxsize=8)
def _tables(device: torch.device) -> tuple[Tensor, ...]:
    """Digits and next state for each state and octants of one, two and three halvings, flat."""
    states = _hilbert_states()
    step = torch.tensor([[following << 3 | digit for digit, following in row] for row in states])
    tables = [step.flatten()]
    for levels in range(1, _LEVELS):
        # one halving, then as many as the last table translates
        first = step[:, :, None]
        rest = tables[-1].view(len(states), -1)[step >> 3]
        bits = 3 * levels
        reached, digits = rest >> bits, rest & ((1 << bits) - 1)
        tables.append((reached << bits + 3 | (first & 7) << bits | digits).flatten())
    return tuple(table.to(device) for table in tables)


def _hilbert_states() -> list[list[tuple[int, int]]]:
    """For each state and octant (bits x, y, z): the digit along the curve, and the next state.

    A state is what Skilling's algorithm has done to the bits below the current halving: which axis
    is in each place, which of them are mirrored, and the parity of the bits written so far,
    which turns its Gray code into a number.
    """
    states = [((0, 1, 2), (0, 0, 0), 0)]
    rows: list[list[tuple[int, int]]] = []
    for axes, mirrored, parity in states:  # grows during the loop
        row = []
        for octant in range(8):
            bits = [
                octant >> (2 - axis) & 1 ^ flip for axis, flip in zip(axes, mirrored, strict=True)
            ]
            digit, odd = 0, parity
            for bit in bits:
                odd ^= bit
                digit = digit << 1 | odd
            order, flips = list(axes), list(mirrored)
            for place, bit in enumerate(bits):
                if bit:
                    flips[0] ^= 1
                else:
                    order[0], order[place] = order[place], order[0]
                    flips[0], flips[place] = flips[place], flips[0]
            state = ((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]), odd)
            if state not in states:
                states.append(state)
            row.append((digit, states.index(state)))
        rows.append(row)
    return rows
