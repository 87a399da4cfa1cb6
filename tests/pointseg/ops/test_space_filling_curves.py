"""Codes along the z curve and Hilbert's."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from pointseg.ops.space_filling_curves import MAX_DEPTH, ORDERS, decode, encode, encode_orders


def cube(depth):
    axis = torch.arange(2**depth)
    return torch.cartesian_prod(axis, axis, axis)


def voxels(count, depth, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coord = torch.randint(0, 2**depth, (count, 3), generator=generator)
    return coord, torch.randint(0, 5, (count,), generator=generator)


def zeros(coord):
    return torch.zeros(len(coord), dtype=torch.int64)


def test_z_by_hand():
    coord = torch.tensor([[0, 0, 1], [0, 1, 0], [1, 0, 0], [3, 0, 0], [2, 1, 3]])
    batch = torch.tensor([0, 0, 0, 0, 1])
    # x2 y2 z2 x1 y1 z1: 2 1 3 is 10, 01, 11 -> 101 011
    assert encode(coord, batch, 2, "z").tolist() == [1, 2, 4, 0b100100, 64 + 0b101011]
    assert encode(coord, batch, 2, "z-trans").tolist() == [1, 4, 2, 0b010010, 64 + 0b011101]


def test_hilbert_by_hand():
    # One halving: the reflected Gray code, each step along one axis.
    path = torch.tensor(
        [[0, 0, 0], [0, 0, 1], [0, 1, 1], [0, 1, 0], [1, 1, 0], [1, 1, 1], [1, 0, 1], [1, 0, 0]]
    )
    assert encode(path, zeros(path), 1, "hilbert").tolist() == list(range(8))
    assert encode(path[:, [1, 0, 2]], zeros(path), 1, "hilbert-trans").tolist() == list(range(8))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4, 5])
def test_every_voxel_of_a_cube_has_its_own_place(order, depth):
    coord = cube(depth)
    code = encode(coord, zeros(coord), depth, order)
    assert torch.equal(code.sort().values, torch.arange(8**depth))
    back, batch = decode(code, depth, order)
    assert torch.equal(back, coord) and not batch.any()


@pytest.mark.parametrize("order", ["hilbert", "hilbert-trans"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_hilberts_curve_steps_from_neighbour_to_neighbour(order, depth):
    path, _ = decode(torch.arange(8**depth), depth, order)
    assert ((path[1:] - path[:-1]).abs().sum(1) == 1).all()


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("depth", [1, 7, 8, 9, 12, MAX_DEPTH])
def test_decoding_undoes_encoding(order, depth):
    coord, batch = voxels(300, depth)
    code = encode(coord, batch, depth, order)
    back, numbers = decode(code, depth, order)
    assert torch.equal(back, coord) and torch.equal(numbers, batch)
    assert torch.equal(code >> 3 * depth, batch)


@pytest.mark.parametrize("order", ORDERS)
def test_a_shorter_code_is_the_cell_that_holds_the_voxel(order):
    coord = cube(4)
    code = encode(coord, zeros(coord), 4, order) >> 3
    cells = [tuple(cell) for cell in (coord >> 1).tolist()]
    assert len(set(zip(code.tolist(), cells, strict=True))) == 8**3


def skilling(coord, depth):
    """His algorithm as printed, for one voxel: bits of the axes to the transposed code, read out."""
    x = list(coord)
    for below in ((1 << level) - 1 for level in reversed(range(depth))):
        for i in range(3):
            if x[i] & (below + 1):
                x[0] ^= below
            else:
                swap = (x[0] ^ x[i]) & below
                x[0] ^= swap
                x[i] ^= swap
    code = odd = 0
    for level in reversed(range(depth)):
        for i in range(3):
            odd ^= x[i] >> level & 1
            code = code << 1 | odd
    return code


@pytest.mark.parametrize("depth", [2, 3, 7, 16])
def test_as_skilling_printed_it(depth):
    coord, _ = voxels(100, depth)
    code = encode(coord, zeros(coord), depth, "hilbert")
    assert code.tolist() == [skilling(voxel, depth) for voxel in coord.tolist()]


def test_as_the_reference(shared):
    golden = np.load(shared / "golden/ptv3/io.npz")
    coord, offset = torch.from_numpy(golden["grid_coord"]), golden["offset"]
    batch = torch.from_numpy(np.repeat(np.arange(len(offset)), np.diff(offset, prepend=0)))
    codes = encode_orders(coord, batch, int(golden["serialized_depth"]))
    np.testing.assert_array_equal(codes.numpy(), golden["serialized_code"])


def test_several_orders_at_once():
    coord, batch = voxels(200, 6)
    codes = encode_orders(coord, batch, 6, ("hilbert-trans", "z"))
    assert torch.equal(codes[0], encode(coord, batch, 6, "hilbert-trans"))
    assert torch.equal(codes[1], encode(coord, batch, 6, "z"))


def test_no_voxels():
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert encode_orders(none, none[:, 0], 4).shape == (4, 0)
    assert decode(none[:, 0], 4, "hilbert")[0].shape == (0, 3)


@pytest.mark.parametrize("order", ["z", "hilbert"])
def test_quick(order):
    coord, batch = voxels(100_000, 11)
    encode(coord, batch, 11, order)  # tables are made once
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        encode(coord, batch, 11, order)
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.1  # a tenth of it on an idle core


def test_unknown_order():
    coord, batch = voxels(3, 2)
    with pytest.raises(ValueError, match="'order' must be one of z, .*, got 'peano'"):
        encode(coord, batch, 2, "peano")
    with pytest.raises(ValueError, match="'order'"):
        decode(batch, 2, "peano")


@pytest.mark.parametrize("depth", [-1, 17])
def test_depth_out_of_range(depth):
    coord, batch = voxels(3, 2)
    with pytest.raises(ValueError, match=f"'depth' must be 0 to 16, got {depth}"):
        encode(coord, batch, depth, "z")
    with pytest.raises(ValueError, match="'depth'"):
        decode(batch, depth, "z")


def test_coordinates_that_do_not_fit():
    with pytest.raises(ValueError, match="in 0 to 3 at depth 2, got 0 to 4"):
        encode(torch.tensor([[0, 4, 1]]), torch.tensor([0]), 2, "z")
    with pytest.raises(ValueError, match="got -1 to 1"):
        encode(torch.tensor([[0, -1, 1]]), torch.tensor([0]), 2, "z")
    with pytest.raises(ValueError, match=r"must be \(N, 3\) int64"):
        encode(torch.zeros(2, 3), torch.tensor([0, 0]), 2, "z")


def test_batch_numbers_that_do_not_fit():
    coord = torch.zeros(1, 3, dtype=torch.int64)
    assert encode(coord, torch.tensor([2**15 - 1]), 16, "z")[0] >> 48 == 2**15 - 1
    with pytest.raises(ValueError, match="'batch' must be in 0 to 32767 at depth 16"):
        encode(coord, torch.tensor([2**15]), 16, "z")
    with pytest.raises(ValueError, match="'batch'"):
        encode(coord, torch.tensor([-1]), 16, "z")
