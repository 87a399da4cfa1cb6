"""Codes along the z curve and Hilbert's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointseg.ops.attention.space_filling_curves import ORDERS
from pointseg.ops.attention.space_filling_curves import encode as encode_all


def encode(coord, batch, depth, order):
    return encode_all(coord, batch, depth, (order,))[0]


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


@pytest.mark.parametrize("order", ["hilbert", "hilbert-trans"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5])
def test_hilberts_curve_steps_from_neighbour_to_neighbour(order, depth):
    coord = cube(depth)
    path = coord[torch.argsort(encode(coord, zeros(coord), depth, order))]
    assert ((path[1:] - path[:-1]).abs().sum(1) == 1).all()


@pytest.mark.parametrize("order", ORDERS)
def test_clouds_follow_each_other(order):
    coord, batch = voxels(300, 16)
    assert torch.equal(encode(coord, batch, 16, order) >> 48, batch)


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
    codes = encode_all(coord, batch, int(golden["serialized_depth"]))
    np.testing.assert_array_equal(codes.numpy(), golden["serialized_code"])


def test_no_voxels():
    none = torch.zeros(0, 3, dtype=torch.int64)
    assert encode_all(none, none[:, 0], 4).shape == (4, 0)


@pytest.mark.parametrize(
    ("coord", "batch", "depth", "order", "named"),
    [
        ([[0, 1, 1]], 0, 2, "peano", "'orders'"),
        ([[0, 1, 1]], 0, -1, "z", "'depth'"),
        ([[0, 1, 1]], 0, 17, "z", "'depth'"),
        ([[0, 4, 1]], 0, 2, "z", "'grid_coord'"),
        ([[0, -1, 1]], 0, 2, "z", "'grid_coord'"),
        ([[0.0, 1, 1]], 0, 2, "z", "'grid_coord'"),
        ([[0, 0, 0]], 2**15, 16, "z", "'batch'"),
        ([[0, 0, 0]], -1, 16, "z", "'batch'"),
    ],
)
def test_what_is_refused(coord, batch, depth, order, named):
    with pytest.raises(ValueError, match=named):
        encode(torch.tensor(coord), torch.tensor([batch]), depth, order)
