"""The ways of other devices give what those of a CPU give, bit for bit, in all rooms of operators."""

import itertools

import pytest
import torch

from pointseg.ops.attention.space_filling_curves import encode
from pointseg.ops.convolution.grid import Grid
from pointseg.ops.grouping.neighbour_features import neighbour_max
from pointseg.ops.grouping.neighbours import ball, knn
from pointseg.ops.grouping.pooling import pool_cells, pool_grid
from pointseg.ops.grouping.segments import Segments
from pointseg.ops.hardware.pieces import decided_for


def cloud(kind):
    """(N, 3) voxels and (N,) clouds: some unsorted, sorted, alone, in few clouds of many, far apart, none."""
    generator = torch.Generator().manual_seed(3)
    if kind == "one":
        return torch.tensor([[3, 0, 2]]), torch.tensor([0])
    if kind == "none":
        return torch.zeros(0, 3, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    cells = (torch.rand(5, 6, 5, 7, generator=generator) < 0.35).nonzero()
    if kind == "far apart":  # numbers of voxels that 32 bits do not hold
        cells[:, 1:] *= torch.tensor([900, 1100, 1300])
        cells[: len(cells) // 2, 1:] += 1
    if kind == "empty clouds":
        cells = cells[(cells[:, 0] != 0) & (cells[:, 0] != 3)]
    if kind != "sorted":
        cells = cells[torch.randperm(len(cells), generator=generator)]
    if kind == "clouds in a row":
        cells = cells[cells[:, 0].argsort(stable=True)]
    return cells[:, 1:].contiguous(), cells[:, 0].contiguous()


KINDS = ("unsorted", "sorted", "clouds in a row", "empty clouds", "far apart", "one", "none")


def both(make):
    """What a CPU's ways and those of CUDA make."""
    here = make()
    with decided_for("cuda"):
        return here, make()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 5])
def test_neighbours(kind, size):
    ours, theirs = both(lambda: Grid(*cloud(kind)).kernel_map(size))
    assert theirs._kept.neighbours[0] is not None and ours._kept.neighbours[0] is None
    for one, other in ((ours, theirs), (ours.transposed, theirs.transposed)):
        assert other.neighbours.dtype == torch.int32 and other.neighbours.is_contiguous()
        assert torch.equal(one.neighbours, other.neighbours)
        assert torch.equal(one.table, other.table)
    assert ours.count == theirs.count


def test_neighbours_in_pieces(monkeypatch):
    grid = Grid(*cloud("unsorted"))
    whole = grid._neighbours(3)
    monkeypatch.setattr("pointseg.ops.convolution.grid.VALUES", 27 * 50)
    assert torch.equal(grid._neighbours(3), whole)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_coarser_grids(kind, stride):
    ours, theirs = both(lambda: Grid(*cloud(kind)).coarser(stride))
    for one, other in ((ours[1], theirs[1]), (ours[1].transposed, theirs[1].transposed)):
        assert torch.equal(one.neighbours, other.neighbours)
        assert torch.equal(one.table, other.table)
    assert torch.equal(ours[0].coord, theirs[0].coord)
    # a grid of cells is what it would be if its voxels were looked at
    again = Grid(theirs[0].coord, theirs[0].batch)
    assert again._ordered and torch.equal(again._order, theirs[0]._order)
    limits = zip(again.extent, theirs[0].extent, strict=True)
    assert all(least <= stated for least, stated in limits)
    with decided_for("cuda"):
        assert torch.equal(again.kernel_map(3).neighbours, theirs[0].kernel_map(3).neighbours)


def test_tiles_of_a_map_of_a_device():
    """A map that was made of neighbours has pairs, too: for those who ask."""
    with decided_for("cuda"):
        maps = [Grid(*cloud("unsorted")).kernel_map(3), Grid(*cloud("unsorted")).coarser()[1]]
    for found, wanted in itertools.product(maps, ("", "transposed")):
        kernel_map = getattr(found, wanted) if wanted else found
        pairs = kernel_map.pairs()
        assert sum(len(tile.bag) for tile in kernel_map.tiles) == sum(len(s) for s, _ in pairs)


@pytest.mark.parametrize("first", [0, 3])
@pytest.mark.parametrize("kind", ["clouds in a row", "one"])
def test_pooling(kind, first):
    coord, batch = cloud(kind)
    codes = encode(coord, batch, 3)
    offset = torch.bincount(batch, minlength=6).cumsum(0)
    for ours, theirs in (
        both(lambda: pool_cells(codes, codes.argsort(), offset, first=first)),
        both(lambda: pool_grid(coord, batch, offset, 3)),
    ):
        for name, value in vars(ours).items():
            if name == "segments":
                assert all(
                    torch.equal(a, getattr(theirs.segments, n)) for n, a in vars(value).items()
                )
            elif name != "counts":
                assert torch.equal(value, getattr(theirs, name)), name
        assert ours.counts == theirs.counts


def test_segments():
    index = torch.tensor([4, 0, 4, 2, 0, 4])
    ours, theirs = both(lambda: Segments.of(index, 7))
    assert torch.equal(ours.starts, theirs.starts) and torch.equal(ours.order, theirs.order)


@pytest.mark.parametrize("on_a_grid", [False, True])
def test_nearest_points_and_balls(on_a_grid):
    """Also which of equally distant ones are taken."""
    generator = torch.Generator().manual_seed(0)
    source, query = (torch.rand(count, 3, generator=generator) for count in (700, 300))
    if on_a_grid:
        source, query = (points.mul_(8).round_() for points in (source, query))
    ends = torch.tensor([200, 200, 700]), torch.tensor([90, 90, 300])

    for found in (
        both(lambda: knn(query, ends[1], source, ends[0], 4)),
        both(lambda: ball(query, ends[1], source, ends[0], radius_m=0.2 + on_a_grid, k=5)),
        both(lambda: [neighbour_max(source, knn(query, ends[1], source, ends[0], 4)[0])]),
    ):
        assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
