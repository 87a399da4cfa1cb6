"""Nearest points and balls: by hand, as a k-d tree, cloud by cloud."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from pointseg.ops.grouping.neighbours import ball, knn
from pointseg.ops.hardware.pieces import decided_for


@pytest.fixture(autouse=True, params=["cpu", "cuda"])
def ways(request):
    """Everything here holds for the ways of a CPU and for those of other devices."""
    with decided_for(request.param):
        yield


LINE = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [7, 0, 0]])
INF = math.inf


def ends(*counts):
    return torch.tensor(counts).cumsum(0)


def points(count, seed=0, scale=1.0):
    return torch.rand(count, 3, generator=torch.Generator().manual_seed(seed)) * scale


def uneven(count=3000, seed=0):
    """Density falls with the cube of the distance, as in a scan, with some repeated points."""
    rng = np.random.default_rng(seed)
    direction = rng.normal(size=(count, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    coord = direction * np.exp(rng.uniform(-3, 4, (count, 1)))
    coord[-50:] = coord[:50]
    return torch.from_numpy(coord.astype(np.float32))


def by_tree(query, source, k, radius=INF):
    """Distances of the k nearest; inf beyond the radius."""
    found = cKDTree(source.numpy()).query(query.numpy(), k, distance_upper_bound=radius)[0]
    return torch.from_numpy(found.reshape(len(query), k)).float()


def assert_between(rows, distances, query, source):
    """The rows are at the distances stated."""
    real = (query[:, None] - source[rows]).norm(dim=2)
    found = distances.isfinite()
    torch.testing.assert_close(real[found], distances[found], atol=1e-5, rtol=1e-5)


def test_knn_by_hand():
    query = torch.tensor([[0.9, 0, 0], [9, 0, 0]])
    rows, distances = knn(query, ends(2), LINE, ends(4), 3)
    assert rows.tolist() == [[1, 0, 2], [3, 2, 1]]
    torch.testing.assert_close(distances, torch.tensor([[0.1, 0.9, 2.1], [2, 6, 8]]))


def test_ball_by_hand():
    rows, distances = ball(LINE, ends(4), LINE, ends(4), radius_m=2, k=3)
    # what is at exactly the radius belongs; the nearest, the point itself, fills up
    assert rows.tolist() == [[0, 1, 0], [1, 0, 2], [2, 1, 2], [3, 3, 3]]
    assert distances.tolist() == [[0, 1, INF], [0, 1, 2], [0, 2, INF], [0, INF, INF]]


def test_a_ball_takes_the_nearest_and_fills_up_from_outside_only_when_empty():
    query = torch.tensor([[0.4, 0, 0], [100, 0, 0]])
    rows, distances = ball(query, ends(2), LINE, ends(4), radius_m=0.7, k=1)
    assert rows.tolist() == [[0], [3]] and distances[1].isinf().all()
    rows, distances = ball(query, ends(2), LINE, ends(4), radius_m=0.7, k=2)
    assert rows.tolist() == [[0, 1], [3, 3]]


@pytest.mark.parametrize("k", [1, 3, 16])
@pytest.mark.parametrize("cloud", ["even", "uneven", "plane", "far"])
def test_knn_is_that_of_a_tree(cloud, k):
    source = {
        "even": points(2000),
        "uneven": uneven(),
        "plane": points(2000) * torch.tensor([5.0, 5, 0]),
        "far": points(2000) * 4 + torch.tensor([800.0, -900, 50]),
    }[cloud]
    query = torch.cat([source[::3], points(100, 1, 3), source[:50] + 20])
    rows, distances = knn(query, ends(len(query)), source, ends(len(source)), k)
    torch.testing.assert_close(distances, by_tree(query, source, k), atol=1e-5, rtol=1e-5)
    assert_between(rows, distances, query, source)
    assert (rows.sort(1).values.diff(dim=1) > 0).all()  # none twice


@pytest.mark.parametrize(("radius_m", "k"), [(0.05, 4), (0.13, 8), (0.5, 300), (3.0, 64)])
def test_ball_is_that_of_a_tree(radius_m, k):
    source = points(700)
    query = torch.cat([source[::2], points(50, 1, 2)])
    rows, distances = ball(
        query, ends(len(query)), source, ends(len(source)), radius_m=radius_m, k=k
    )
    wanted = by_tree(query, source, k, radius_m)
    assert torch.equal(distances.isinf(), wanted.isinf())
    torch.testing.assert_close(distances, wanted, atol=1e-6, rtol=1e-5)
    assert_between(rows, distances, query, source)
    nearest = knn(query, ends(len(query)), source, ends(len(source)), 1)[0]
    assert torch.equal(torch.where(distances.isinf(), rows, nearest), nearest.expand(-1, k))


def test_pieces_change_nothing(monkeypatch):
    source, offset = uneven(900), ends(300, 600)
    whole = [
        *knn(source, offset, source, offset, 5),
        *ball(source, offset, source, offset, radius_m=0.3, k=7),
    ]
    monkeypatch.setattr("pointseg.ops.grouping.cells._PIECE", 50)
    monkeypatch.setattr("pointseg.ops.hardware.pieces.VALUES", 16 * 50)
    pieces = [
        *knn(source, offset, source, offset, 5),
        *ball(source, offset, source, offset, radius_m=0.3, k=7),
    ]
    assert all(torch.equal(a, b) for a, b in zip(whole, pieces, strict=True))


def test_order_of_points_does_not_matter():
    source = points(500)
    moved = torch.randperm(500, generator=torch.Generator().manual_seed(3))
    rows, distances = knn(source, ends(500), source, ends(500), 6)
    again = knn(source[moved], ends(500), source[moved], ends(500), 6)
    assert torch.equal(again[1], distances[moved])
    assert torch.equal(moved[again[0]], rows[moved])
    rows, distances = ball(source, ends(500), source, ends(500), radius_m=0.2, k=6)
    again = ball(source[moved], ends(500), source[moved], ends(500), radius_m=0.2, k=6)
    assert torch.equal(again[1], distances[moved])
    assert torch.equal(moved[again[0]], rows[moved])


def test_clouds_do_not_see_each_other():
    clouds = [points(300, 0), points(40, 1) + 0.5, points(7, 2) - 3]
    query = [cloud[::3] + 0.01 for cloud in clouds]
    joined = torch.cat(query), ends(*map(len, query)), torch.cat(clouds), ends(*map(len, clouds))
    for function in (
        lambda q, qo, s, so: knn(q, qo, s, so, 4),
        lambda q, qo, s, so: ball(q, qo, s, so, radius_m=0.2, k=4),
    ):
        rows, distances = function(*joined)
        start = first = 0
        for q, s in zip(query, clouds, strict=True):
            alone = function(q, ends(len(q)), s, ends(len(s)))
            assert torch.equal(rows[start : start + len(q)], alone[0] + first)
            assert torch.equal(distances[start : start + len(q)], alone[1])
            start, first = start + len(q), first + len(s)


def test_a_cloud_may_be_empty():
    source, offset = points(20), ends(0, 20, 0)
    for rows, _ in (
        knn(source, offset, source, offset, 2),
        ball(source, offset, source, offset, radius_m=0.3, k=2),
    ):
        assert torch.equal(rows[:, 0], torch.arange(20))
    none = torch.zeros(0, 3)
    assert knn(none, ends(0), none, ends(0), 3)[0].shape == (0, 3)
    assert ball(none, ends(0), none, ends(0), radius_m=1, k=3)[1].shape == (0, 3)


def test_fewer_points_than_asked_for():
    rows, distances = knn(LINE[:2], ends(2), LINE[:2], ends(2), 4)
    assert rows.tolist() == [[0, 1, 0, 0], [1, 0, 1, 1]]
    assert distances.tolist() == [[0, 1, INF, INF], [0, 1, INF, INF]]
    one = knn(LINE[:1], ends(1), LINE[:1], ends(1), 3)
    assert one[0].tolist() == [[0, 0, 0]] and one[1].tolist() == [[0, INF, INF]]


def test_all_points_equal():
    same = torch.full((60, 3), 1.3)
    rows, distances = knn(same, ends(60), same, ends(60), 5)
    assert not distances.any() and (rows.sort(1).values.diff(dim=1) > 0).all()
    rows, distances = ball(same, ends(60), same, ends(60), radius_m=0.1, k=5)
    assert not distances.any() and (rows.sort(1).values.diff(dim=1) > 0).all()


@pytest.mark.parametrize(
    "function", [knn, lambda *given: ball(*given[:4], radius_m=1.0, k=given[4])]
)
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"k": 0}, "'k'"),
        ({"source": LINE[:, :2]}, "'source'"),
        ({"query_offset": ends(2, 2)}, "'query_offset' and 'source_offset'"),
        ({"query_offset": ends(5)}, "'query_offset'"),
        ({"query_offset": ends(2, 2), "source_offset": ends(4, 0)}, "cloud 1"),
        ({"source": LINE / 0}, "finite"),
        ({"query": LINE / 0}, "'query'"),
        ({"query": LINE * 1e30}, "'query'"),  # its square is not finite
    ],
)
def test_bad_arguments_are_refused(function, change, named):
    given = {"query": LINE, "query_offset": ends(4), "source": LINE, "source_offset": ends(4)}
    with pytest.raises(ValueError, match=named):
        function(*(given | {"k": 2} | change).values())


def test_a_radius_of_nothing_is_refused():
    with pytest.raises(ValueError, match="'radius_m'"):
        ball(LINE, ends(4), LINE, ends(4), radius_m=0, k=1)
