"""Points in cubic cells, and those in the cells around others."""

from __future__ import annotations

import pytest
import torch

from pointseg.ops.grouping.cells import Boxes, Cells
from pointseg.ops.hardware.pieces import decided_for


@pytest.fixture(autouse=True, params=["cpu", "cuda"])
def ways(request):
    """Everything here holds for the ways of a CPU and for those of other devices."""
    with decided_for(request.param):
        yield


LINE = torch.tensor([[2.6, 0, 0], [0, 0, 0], [1.2, 0, 0], [5, 0, 0], [1.9, 0, 0]])
ONE = torch.zeros(5, dtype=torch.int64)


def around(cells, query, batch):
    """Rows of the sources of each query."""
    found: list[list[int]] = [[] for _ in query]
    for piece in cells.around(query, batch):
        start, stop, of, source = piece.start, piece.stop, piece.of, piece.source
        assert (of.diff() >= 0).all() and (of < stop - start).all()
        assert torch.equal(piece.ends, torch.bincount(of, minlength=stop - start).cumsum(0))
        for number, row in zip(of.tolist(), cells.rows[source].tolist(), strict=True):
            found[start + number].append(row)
    return found


def test_by_hand():
    boxes = Boxes.of(LINE, [5])
    assert boxes.extent_m == 5 and boxes.low.tolist() == [[0, 0, 0]]
    cells = Cells(LINE, ONE, boxes, 1.0)
    assert cells.rows.tolist() == [1, 2, 4, 0, 3]  # cells 0, 1, 1, 2, 4
    assert cells.held == (1 + 2 + 2 + 1 + 1) / 5
    query = torch.tensor([[0.5, 0, 0], [3.9, 0, 0], [90, 5, 0]])
    # a point outside looks from the nearest end of the box
    assert around(cells, query, ONE[:3]) == [[1, 2, 4], [0, 3], [3]]


def test_all_within_reach_are_among_those_around():
    generator = torch.Generator().manual_seed(0)
    source, query = torch.rand(400, 3, generator=generator), torch.rand(90, 3, generator=generator)
    batch = (torch.arange(400) >= 150).long()
    boxes = Boxes.of(source, (150, 400))
    for side_m in (1e-9, 0.07, 0.3, 2.0):
        cells = Cells(source, batch, boxes, side_m)
        found = around(cells, query, (torch.arange(90) % 2))
        for number, rows in enumerate(found):
            near = (source - query[number]).norm(dim=1) <= cells.reach_m
            wanted = (near & (batch == number % 2)).nonzero()[:, 0].tolist()
            assert set(wanted) <= set(rows) and len(set(rows)) == len(rows)
            assert {number % 2} >= set(batch[rows].tolist())


def test_neighbours_at_exactly_the_side_are_seen_far_from_the_first_cell():
    # float32 rounds 0.1 up and down along the line
    line = torch.arange(20_000)[:, None] * torch.tensor([[0.1, 0.0, 0.0]])
    cells = Cells(line, torch.zeros(20_000, dtype=torch.int64), Boxes.of(line, [20_000]), 0.1)
    for number, rows in enumerate(around(cells, line[::777], torch.zeros(26, dtype=torch.int64))):
        row = number * 777
        assert {max(row - 1, 0), row, min(row + 1, 19_999)} <= set(rows)


def test_coordinates_must_be_finite():
    with pytest.raises(ValueError, match="coordinates must be finite; drop points"):
        Boxes.of(LINE * torch.nan, [5])
