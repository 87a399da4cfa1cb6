"""Averages and maxima over neighbours: by hand, gradients, pieces, what is refused."""

from __future__ import annotations

import pytest
import torch

from pointseg.ops.grouping.neighbour_features import interpolate, neighbour_max
from pointseg.ops.grouping.neighbours import knn
from pointseg.ops.hardware.pieces import decided_for


@pytest.fixture(autouse=True, params=["cpu", "cuda"])
def ways(request):
    """Everything here holds for the ways of a CPU and for those of other devices."""
    with decided_for(request.param):
        yield


def test_interpolate_by_hand():
    feat = torch.tensor([[0.0, 1], [6, 2], [3, 9]])
    rows, distances = (
        torch.tensor([[0, 1], [2, 0], [1, 1]]),
        torch.tensor([[1.0, 2], [0, 4], [5, torch.inf]]),
    )
    # inverse distances 1 and 1/2: two thirds and one third
    wanted = torch.tensor([[2, 4 / 3], [3, 9], [6, 2]])
    torch.testing.assert_close(interpolate(feat, rows, distances), wanted)


def test_interpolating_a_constant_keeps_it():
    source, query = (
        torch.rand(count, 3, generator=torch.Generator().manual_seed(0)) for count in (50, 200)
    )
    rows, distances = knn(query, torch.tensor([200]), source, torch.tensor([50]), 3)
    out = interpolate(torch.full((50, 4), 2.5), rows, distances)
    torch.testing.assert_close(out, torch.full((200, 4), 2.5))
    # in a cloud of two points the missing third one does not count
    rows, distances = knn(query, torch.tensor([200]), source[:2], torch.tensor([2]), 3)
    torch.testing.assert_close(
        interpolate(source[:2], rows, distances),
        interpolate(source[:2], rows[:, :2], distances[:, :2]),
    )


def test_neighbour_max_by_hand():
    values = torch.tensor([[1.0, -1], [4, -8], [2, -2]], requires_grad=True)
    rows = torch.tensor([[0, 1, 0], [2, 2, 0], [0, 0, 0]])
    out = neighbour_max(values, rows)
    assert out.tolist() == [[4, -1], [2, -1], [1, -1]]
    out.backward(torch.tensor([[1.0, 10], [2, 20], [3, 30]]))
    assert values.grad is not None
    assert values.grad.tolist() == [[3, 60], [1, 0], [2, 0]]


def test_neighbour_max_is_that_of_gathered_values():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(30, 5, generator=generator, dtype=torch.float64, requires_grad=True)
    rows = torch.randint(30, (40, 4), generator=generator)
    assert torch.equal(neighbour_max(values, rows), values[rows].amax(1))
    assert torch.equal(neighbour_max(values.detach(), rows), values.detach()[rows].amax(1))
    assert torch.autograd.gradcheck(neighbour_max, (values, rows))
    distances = torch.rand(40, 4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(interpolate, (values, rows, distances))


def test_pieces_change_nothing(monkeypatch):
    values = torch.randn(300, 3, generator=torch.Generator().manual_seed(0))
    rows = torch.randint(300, (400, 5), generator=torch.Generator().manual_seed(1))
    whole = neighbour_max(values, rows)
    monkeypatch.setattr("pointseg.ops.grouping.neighbour_features._PIECE", 50)
    monkeypatch.setattr("pointseg.ops.hardware.pieces.VALUES", 16 * 50)
    assert torch.equal(neighbour_max(values, rows), whole)


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda rows: interpolate(torch.zeros(4, 3), rows, torch.zeros(2, 2)), "'distances'"),
        (lambda rows: neighbour_max(torch.zeros(4, 3), rows[:, :0]), "'indices'"),
    ],
)
def test_what_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call(torch.zeros(2, 3, dtype=torch.int64))
