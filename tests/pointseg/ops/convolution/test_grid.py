"""Voxel grids: neighbours worked by hand and by dictionary, borders, coarser grids, errors."""

import gc
import itertools
import weakref

import pytest
import torch

from pointseg.ops.convolution.grid import Grid


def grid(*cells, batch=None):
    coord = torch.tensor(cells, dtype=torch.int64).reshape(-1, 3)
    return Grid(coord, torch.tensor(batch or [0] * len(coord), dtype=torch.int64))


def random_grid(seed=0, batches=2, shuffle=True):
    generator = torch.Generator().manual_seed(seed)
    cells = (torch.rand(batches, 6, 5, 7, generator=generator) < 0.35).nonzero()
    if shuffle:
        cells = cells[torch.randperm(len(cells), generator=generator)]
    return Grid(cells[:, 1:].contiguous(), cells[:, 0].contiguous())


def found(kernel_map):
    """{(offset, source, target)} of all pairs."""
    table = kernel_map.table
    targets, offsets = (table < kernel_map.sources).nonzero().T
    sources = table[targets, offsets]
    return set(zip(offsets.tolist(), sources.tolist(), targets.tolist(), strict=True))


def test_neighbours_by_hand():
    # 13 is the kernel's centre; z is its fastest axis, x its slowest
    pairs = found(grid((0, 0, 0), (0, 0, 1), (1, 0, 0)).kernel_map(3))
    centre = {(13, 0, 0), (13, 1, 1), (13, 2, 2)}
    along_z = {(14, 1, 0), (12, 0, 1)}
    along_x = {(22, 2, 0), (4, 0, 2)}
    diagonal = {(21, 2, 1), (5, 1, 2)}
    assert pairs == centre | along_z | along_x | diagonal


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shuffle", [False, True])
def test_neighbours_as_in_a_dictionary(size, shuffle):
    g = random_grid(shuffle=shuffle)
    rows = {
        (b, *c): i for i, (b, c) in enumerate(zip(g.batch.tolist(), g.coord.tolist(), strict=True))
    }
    expected = set()
    steps = range(-(size // 2), size // 2 + 1)
    for number, (dx, dy, dz) in enumerate(itertools.product(steps, steps, steps)):
        for (b, x, y, z), target in rows.items():
            source = rows.get((b, x + dx, y + dy, z + dz))
            if source is not None:
                expected.add((number, source, target))
    assert found(g.kernel_map(size)) == expected
    assert g.kernel_map(size).count == len(expected)


@pytest.mark.parametrize("size", [3, 5])
def test_borders_do_not_wrap(size):
    # the last cell of a row, slice and cloud, and the first of the next one
    g = grid(
        (0, 0, 4), (0, 1, 0), (0, 4, 4), (1, 0, 0), (4, 4, 4), (0, 0, 0), batch=[0, 0, 0, 0, 0, 1]
    )
    centre = size**3 // 2
    near = {(o, s, t) for o, s, t in found(g.kernel_map(size)) if o != centre}
    apart = (g.coord[:, None] - g.coord).abs().amax(-1)
    same = g.batch[:, None] == g.batch
    expected = ((apart > 0) & (apart <= size // 2) & same).nonzero().tolist()
    assert sorted((t, s) for _, s, t in near) == sorted(map(tuple, expected))


def test_maps_are_kept():
    g = random_grid()
    assert g.kernel_map(3) is g.kernel_map(3)
    assert g.coarser() is not None and g.coarser()[0] is g.coarser()[0]
    for kernel_map in (g.kernel_map(3), g.coarser()[1]):
        back = kernel_map.transposed
        assert (
            back.tiles is kernel_map.transposed.tiles and back.table is kernel_map.transposed.table
        )
        assert back.transposed.tiles is kernel_map.tiles


def test_maps_are_freed_at_once():
    """Without waiting for the collector of cycles: they are the largest things after features."""
    g = random_grid()
    maps = [g.kernel_map(3), g.coarser()[1]]
    tiles = [weakref.ref(m.transposed.tiles[0].bag) for m in maps] + [weakref.ref(m) for m in maps]
    gc.disable()
    try:
        del g, maps
        assert not any(reference() is not None for reference in tiles)
    finally:
        gc.enable()


def test_pairs_come_back_from_tiles():
    for kernel_map in (random_grid().kernel_map(3), random_grid().coarser()[1]):
        fresh = {t: found(m) for t, m in enumerate((kernel_map, kernel_map.transposed))}
        kernel_map._kept.tables, kernel_map._kept.neighbours = [None] * 2, [None] * 2
        assert kernel_map.transposed.tiles  # made first, and then the pairs are dropped
        assert {t: found(m) for t, m in enumerate((kernel_map, kernel_map.transposed))} == fresh


@pytest.mark.parametrize("which", ["submanifold", "strided"])
def test_transposed_swaps_sources_and_targets(which):
    g = random_grid()
    forward = g.kernel_map(3) if which == "submanifold" else g.coarser()[1]
    assert found(forward.transposed) == {(o, t, s) for o, s, t in found(forward)}


def test_coarser_by_hand():
    g = grid((5, 0, 0), (4, 1, 1), (0, 0, 3), (0, 0, 0), batch=[0, 0, 0, 1])
    coarse, kernel_map = g.coarser()
    assert coarse.coord.tolist() == [[0, 0, 1], [2, 0, 0], [0, 0, 0]]
    assert coarse.batch.tolist() == [0, 0, 1]
    assert g.cells().index.tolist() == [1, 1, 0, 2]
    # the offset is the place within the cell: (1, 0, 0) is 4, (0, 1, 1) is 3, (0, 0, 1) is 1
    assert found(kernel_map) == {(4, 0, 1), (3, 1, 1), (1, 2, 0), (0, 3, 2)}


def test_coarser_by_three():
    coarse, kernel_map = grid((2, 3, 8), (0, 5, 6)).coarser(3)
    assert coarse.coord.tolist() == [[0, 1, 2]]
    assert found(kernel_map) == {(2 * 9 + 0 * 3 + 2, 0, 0), (0 * 9 + 2 * 3 + 0, 1, 0)}


def test_no_voxels_at_all():
    g = grid()
    assert len(g) == 0 and g.kernel_map(3).count == 0
    coarse, kernel_map = g.coarser()
    assert len(coarse) == 0 and kernel_map.count == 0


ROWS = torch.zeros(3, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: Grid(ROWS[:, :2], ROWS[:, 0]), "'coord'"),
        (lambda: Grid(ROWS.float(), ROWS[:, 0]), "'coord' .* int64"),
        (lambda: Grid(ROWS, ROWS[:2, 0]), "'batch'"),
        (lambda: grid((0, -1, 0)), "-1"),
        (lambda: grid((1, 2, 3), (0, 0, 0), (1, 2, 3)), "1 rows repeat"),
        (lambda: grid((2**21, 2**21, 2**21)), "62 bits"),
        (lambda: grid((0, 0, 0)).kernel_map(2), "'size'"),
        (lambda: grid((0, 0, 0)).kernel_map(-1), "'size'"),
        (lambda: grid((0, 0, 0)).coarser(0), "'stride'"),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
