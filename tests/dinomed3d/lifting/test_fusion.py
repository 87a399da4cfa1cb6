"""Fusing what several views show."""

from __future__ import annotations

import pytest
import torch

from dinomed3d.lifting import Last, Max, Mean, Nearest, Random


class Drawn(Random):
    """Random, always of the same seed."""

    def __init__(self, seed=0):
        super().__init__(torch.Generator().manual_seed(seed))


BY_HAND = [Last, Nearest, Mean, Max]
ALL = [*BY_HAND, Drawn]

# Three views of four points: point 0 is seen by all, 1 by the first two, 2 by the last, 3 by none.
VIEWS = [
    ([0, 1], [[1.0, -8.0], [5.0, -5.0]], [2.0, 3.0]),
    ([1, 0], [[9.0, -9.0], [4.0, -4.0]], [3.0, 1.0]),  # in another order
    ([0, 2], [[1.0, -3.0], [7.0, -7.0]], [5.0, 1.0]),
]
WANTED = {
    Last: [[1, -3], [9, -9], [7, -7], [0, 0]],
    Nearest: [[4, -4], [5, -5], [7, -7], [0, 0]],  # at equal distance the first view
    Mean: [[2, -5], [7, -7], [7, -7], [0, 0]],
    Max: [[4, -3], [9, -5], [7, -7], [0, 0]],  # of seen ones: the negative maximum is not 0
}


def fused(fuse, views, *, dtype=torch.float32):
    fuse.start(4, 2, like=torch.zeros((), dtype=dtype))
    for index, features, distance in views:
        fuse.add(torch.tensor(index), torch.tensor(features, dtype=dtype), torch.tensor(distance))
    return fuse.result()


@pytest.mark.parametrize("kind", BY_HAND)
def test_by_hand(kind):
    values, seen = fused(kind(), VIEWS)
    torch.testing.assert_close(values, torch.tensor(WANTED[kind], dtype=torch.float32))
    assert seen.tolist() == [True, True, True, False]


@pytest.mark.parametrize("kind", BY_HAND)
def test_nothing_is_kept_from_the_sites_before(kind):
    fuse = kind()
    fused(fuse, [([0, 1, 2, 3], [[50.0, 50.0]] * 4, [0.1] * 4)])
    values, seen = fused(fuse, VIEWS)
    torch.testing.assert_close(values, torch.tensor(WANTED[kind], dtype=torch.float32))
    assert seen.tolist() == [True, True, True, False]


@pytest.mark.parametrize("kind", [Mean, Max])
def test_the_order_of_views_does_not_matter(kind):
    forth, back = fused(kind(), VIEWS), fused(kind(), VIEWS[::-1])
    torch.testing.assert_close(forth[0], back[0])
    assert torch.equal(forth[1], back[1])


@pytest.mark.parametrize("kind", ALL)
def test_without_views_nothing_is_seen(kind):
    values, seen = fused(kind(), [])
    assert not values.any() and not seen.any()


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_of_the_features_is_kept(kind, dtype):
    values, _ = fused(kind(), VIEWS, dtype=dtype)
    assert values.dtype == dtype
    assert kind is Drawn or values.tolist() == WANTED[kind]


@pytest.mark.parametrize("kind", ALL)
def test_equal_features_stay_what_they_are(kind):
    views = [([0, 1, 2, 3], [[0.1, 0.7]] * 4, [float(d)] * 4) for d in range(9)]
    values, _ = fused(kind(), views)
    torch.testing.assert_close(values, torch.tensor([[0.1, 0.7]] * 4))


def test_the_mean_of_many_views_in_half_precision():
    fuse = Mean()
    fuse.start(1, 1, like=torch.zeros((), dtype=torch.bfloat16))
    for view in range(600):
        part = torch.full((1, 1), float(view % 2), dtype=torch.bfloat16)
        fuse.add(torch.tensor([0]), part, torch.zeros(1))
    assert fuse.count.item() == 600
    assert abs(fuse.result()[0].item() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("kind", "shares"),
    [(Last, [0, 0, 1]), (Nearest, [0, 1, 0]), (Mean, [1 / 3, 1 / 3, 1 / 3]), (Max, [0, 1, 0])],
)
def test_gradients_reach_the_views_by_their_share(kind, shares):
    features = torch.tensor([[[1.0]], [[4.0]], [[2.0]]], requires_grad=True)
    fuse = kind()
    fuse.start(1, 1, like=features)
    for part, distance in zip(features, (2.0, 1.0, 5.0), strict=True):
        fuse.add(torch.tensor([0]), part, torch.tensor([distance]))
    fuse.result()[0].sum().backward()
    torch.testing.assert_close(features.grad.flatten(), torch.tensor(shares, dtype=torch.float32))


# --- one of the views at random


def draws(seed, views, *, points=60_000):
    """Number of the selected view, for points that all `views` see."""
    fuse = Drawn(seed)
    fuse.start(points, 1, like=torch.zeros(()))
    for view in range(views):
        index = torch.randperm(points)
        fuse.add(index, torch.full((points, 1), float(view)), torch.zeros(points))
    return fuse.result()[0].flatten().long()


@pytest.mark.parametrize("views", [1, 2, 3, 7, 40])
def test_every_view_is_taken_equally_often(views):
    counts = torch.bincount(draws(0, views), minlength=views)
    wanted = 60_000 / views
    # Pearson's statistic: views - 1 on average, with a deviation of sqrt(2 (views - 1)).
    statistic = ((counts - wanted) ** 2 / wanted).sum()
    assert len(counts) == views and statistic < views - 1 + 4 * (2 * views) ** 0.5


def test_sites_draw_apart_from_each_other():
    first, second = draws(3, 2).view(2, -1)
    together = torch.bincount(2 * first + second, minlength=4)
    assert (together / len(first) - 0.25).abs().max() < 0.01


def test_only_views_that_see_a_site_are_drawn():
    taken = set()
    for seed in range(60):
        values, seen = fused(Drawn(seed), VIEWS)
        assert seen.tolist() == [True, True, True, False]
        first, second, third, none = values[:, 0].tolist()
        assert third == 7 and none == 0
        taken |= {("first", first), ("second", second)}
    assert taken == {("first", v) for v in (1.0, 4.0)} | {("second", v) for v in (5.0, 9.0)}


def test_the_same_seed_draws_the_same_and_the_next_lifting_something_else():
    assert torch.equal(draws(5, 4), draws(5, 4))
    assert not torch.equal(draws(5, 4), draws(6, 4))
    fuse = Drawn()
    one, two = (
        fused(fuse, [([0, 1, 2, 3], [[float(v)] * 2] * 4, [0.0] * 4) for v in range(50)])[0]
        for _ in range(2)
    )
    assert not torch.equal(one, two)


def test_a_result_needs_a_start():
    with pytest.raises(AssertionError, match="start"):
        Mean().result()
