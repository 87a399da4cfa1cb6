"""Space-filling curves: one integer per voxel, such that voxels of near integers are near in space.

Both curves halve the cube again and again and append three bits per halving, the coarsest first;
``code >> 3`` is therefore the cell of twice the side that holds a voxel, whichever the curve. Along
the z curve (Morton) the bits are those of x, y and z; along Hilbert's curve consecutive voxels share
a face. The batch number stands above the code, so that sorting keeps clouds apart.
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


def encode(grid_coord: Tensor, batch: Tensor, depth: int, order: str) -> Tensor:
    """The place of each voxel along a curve, all voxels of a cloud before those of the next.

    Args:
        grid_coord: (N, 3) int64 voxel coordinates, in 0 to 2^depth - 1.
        batch: (N,) int64 number of the cloud that each voxel is of.
        depth: halvings of the cube, 0 to 16.
        order: one of ``ORDERS``.

    Returns:
        (N,) int64: ``batch << 3 * depth | code``.

    Raises:
        ValueError: an unknown order; a depth, coordinates or batch numbers that do not fit.

    Source: Skilling 2004, AIP Conf. Proc. 707, 381 (Hilbert); bit and axis order as Point
    Transformer V3, arXiv:2312.10035.
    """
    return encode_orders(grid_coord, batch, depth, (order,))[0]


def encode_orders(
    grid_coord: Tensor, batch: Tensor, depth: int, orders: Sequence[str] = ORDERS
) -> Tensor:
    """``encode`` along several curves at once, which share most of the work.

    Returns:
        (O, N) int64, a row for each of the O orders.

    Raises:
        ValueError: as ``encode``.
    """
    for order in orders:
        _check_order(order)
    if grid_coord.dim() != 2 or grid_coord.shape[1] != 3 or grid_coord.dtype != torch.int64:
        raise ValueError(
            f"encode: 'grid_coord' must be (N, 3) int64, got {tuple(grid_coord.shape)} {grid_coord.dtype}"
        )
    _check_fits(grid_coord, batch, depth)
    x, y, z = (_spread(axis, depth) for axis in grid_coord.T.contiguous())
    interleaved = {"": x << 2 | y << 1 | z, "-trans": y << 2 | x << 1 | z}
    above = batch << 3 * depth
    codes = []
    for order in orders:
        curve, trans, _ = order.partition("-trans")
        code = interleaved[trans]
        codes.append(above | (_walk(code, depth, "encode") if curve == "hilbert" else code))
    return torch.stack(codes)


def decode(code: Tensor, depth: int, order: str) -> tuple[Tensor, Tensor]:
    """The voxels at places along a curve; the inverse of ``encode``.

    Args:
        code: (N,) int64.
        depth: halvings of the cube, 0 to 16.
        order: one of ``ORDERS``.

    Returns:
        (N, 3) int64 voxel coordinates and (N,) int64 batch numbers.

    Raises:
        ValueError: an unknown order, or a depth out of range.
    """
    _check_order(order)
    _check_depth(depth)
    batch = code >> 3 * depth
    code = code & ((1 << 3 * depth) - 1)
    if order.startswith("hilbert"):
        code = _walk(code, depth, "decode")
    x, y, z = (_gather_bits(code >> shift, depth) for shift in (2, 1, 0))
    return torch.stack((y, x, z) if order.endswith("trans") else (x, y, z), 1), batch


def _check_order(order: str) -> None:
    if order not in ORDERS:
        raise ValueError(f"curves: 'order' must be one of {', '.join(ORDERS)}, got {order!r}")


def _check_depth(depth: int) -> None:
    if not 0 <= depth <= MAX_DEPTH:
        raise ValueError(f"curves: 'depth' must be 0 to {MAX_DEPTH}, got {depth}")


def _check_fits(grid_coord: Tensor, batch: Tensor, depth: int) -> None:
    _check_depth(depth)
    if not len(grid_coord):
        return
    low, high = (int(bound) for bound in grid_coord.aminmax())
    if low < 0 or high >> depth:
        raise ValueError(
            f"encode: 'grid_coord' must be in 0 to {2**depth - 1} at depth {depth}, got {low} to {high}"
        )
    first, last = (int(bound) for bound in batch.aminmax())
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


def _gather_bits(values: Tensor, depth: int) -> Tensor:
    """Bit 3 i of each number moves to bit i; the other bits are dropped."""
    table, gathered = _gather_table(values.device), torch.zeros_like(values)
    for level in range(0, depth, _LEVELS):
        gathered |= table.index_select(0, values >> 3 * level & 511) << level
    return gathered


def _walk(code: Tensor, depth: int, direction: str) -> Tensor:
    """Go down the halvings of the cube, translating three bits each.

    A state says how the curve lies in the current cell. Entries of the tables are
    ``next state << 3 * levels | bits``.
    """
    tables = _tables(direction, code.device)
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
def _gather_table(device: torch.device) -> Tensor:
    values = torch.arange(8**_LEVELS)
    bits = ((values >> 3 * i & 1) << i for i in range(_LEVELS))
    return sum(bits, torch.zeros_like(values)).to(device)


@lru_cache(maxsize=16)
def _tables(direction: str, device: torch.device) -> tuple[Tensor, ...]:
    """Translation of one, two and three halvings, flat; octants to digits ("encode") or back."""
    states = _hilbert_states()
    step = torch.zeros(len(states), 8, dtype=torch.int64)
    for state, row in enumerate(states):
        for octant, (digit, following) in enumerate(row):
            read, written = (octant, digit) if direction == "encode" else (digit, octant)
            step[state, read] = following << 3 | written
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
    stands in each place, which of them are mirrored, and the parity of the bits written so far,
    which turns its Gray code into a number.
    """
    states = [((0, 1, 2), (0, 0, 0), 0)]
    rows: list[list[tuple[int, int]]] = []
    for axes, mirrored, parity in states:  # grows while it is gone through
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
