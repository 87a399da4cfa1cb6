"""Segments of rows: reductions by hand and as a loop, gradients, types, what is refused."""

from __future__ import annotations

import pytest
import torch

from pointseg.ops.grouping.segments import Segments

VALUES = torch.tensor([[1.0, -1.0], [2.0, -2.0], [4.0, -4.0], [2.0, -5.0]])
INDEX = torch.tensor([2, 0, 2, 0])
REDUCTIONS = ("max", "mean", "sum")


def segment_reduce(values, index, count, reduction):
    return Segments.of(index, count).reduce(values, reduction)


def rows(count=60, channels=3, segments=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(count, channels, generator=generator)
    return values, torch.randint(0, segments, (count,), generator=generator)


@pytest.mark.parametrize(
    ("reduction", "wanted"),
    [
        ("max", [[2, -2], [0, 0], [4, -1]]),
        ("mean", [[2, -3.5], [0, 0], [2.5, -2.5]]),
        ("sum", [[4, -7], [0, 0], [5, -5]]),
    ],
)
def test_by_hand(reduction, wanted):
    assert segment_reduce(VALUES, INDEX, 3, reduction).tolist() == wanted


def test_gradient_by_hand():
    values = VALUES.clone().requires_grad_()
    out = segment_reduce(values, INDEX, 3, "max")
    out.backward(torch.tensor([[6.0, 5.0], [1.0, 1.0], [3.0, 2.0]]))
    # rows 1 and 3 both reach 2 in the first channel of segment 0 and share its gradient
    assert values.grad is not None
    assert values.grad.tolist() == [[0, 2], [3, 5], [3, 0], [3, 0]]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_as_a_loop(reduction):
    values, index = rows()
    out = segment_reduce(values, index, 9, reduction)
    for segment in range(9):
        own = values[index == segment]
        if len(own):
            wanted = own.amax(0) if reduction == "max" else getattr(own, reduction)(0)
        else:
            wanted = torch.zeros(3)
        torch.testing.assert_close(out[segment], wanted)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_order_of_rows_does_not_matter(reduction):
    values, index = rows()
    shuffle = torch.randperm(len(index), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        segment_reduce(values[shuffle], index[shuffle], 7, reduction),
        segment_reduce(values, index, 7, reduction),
    )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_gradients_are_those_of_finite_differences(reduction):
    values, index = rows(20)
    values = values.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: segment_reduce(v, index, 8, reduction), (values,))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_few_bits_are_summed_in_many(reduction, dtype):
    values, index = rows(5000, 2, 2)
    values = values.to(dtype).requires_grad_()
    out = segment_reduce(values, index, 2, reduction)
    wanted = segment_reduce(values.float(), index, 2, reduction).to(dtype)
    assert out.dtype == dtype and torch.equal(out, wanted)
    out.sum().backward()
    assert values.grad is not None and values.grad.dtype == dtype


def test_elsewhere_than_on_cpu_and_cuda(monkeypatch):
    # the branch of devices without torch.segment_reduce, run here by hiding where the rows are
    values, index = rows()
    segments = Segments.of(index, 9)
    expected = {kind: segments.reduce(values, kind) for kind in REDUCTIONS}

    monkeypatch.delattr(torch, "segment_reduce")

    class Elsewhere(torch.Tensor):
        device = torch.device("mps")  # type: ignore[assignment]

    for kind in REDUCTIONS:
        out = segments.reduce(values.as_subclass(Elsewhere), kind)
        torch.testing.assert_close(out.as_subclass(torch.Tensor), expected[kind])


def test_spread_gives_each_row_its_segment_and_sums_gradients():
    segments = Segments.of(INDEX, 3)
    values = torch.tensor([[1.0], [2.0], [3.0]], requires_grad=True)
    out = segments.spread(values)
    assert out.flatten().tolist() == [3, 1, 3, 1]
    out.backward(torch.tensor([[1.0], [2.0], [4.0], [8.0]]))
    assert values.grad is not None and values.grad.flatten().tolist() == [10, 0, 5]


def test_segments_by_hand():
    segments = Segments.of(INDEX, 3)
    assert segments.order.tolist() == [1, 3, 0, 2]
    assert segments.starts.tolist() == [0, 2, 2, 4]
    assert segments.counts.tolist() == [2, 0, 2] and len(segments) == 3


def test_no_rows():
    none = torch.zeros(0, 2)
    assert (
        segment_reduce(none, torch.zeros(0, dtype=torch.int64), 2, "max").tolist() == [[0, 0]] * 2
    )


@pytest.mark.parametrize(
    ("values", "index", "count", "reduction", "named"),
    [
        (VALUES, INDEX, 3, "min", "'reduction'"),
        (VALUES[:2], INDEX, 3, "sum", "'values'"),
        (VALUES, INDEX, 2, "sum", "'index'"),
        (VALUES, INDEX - 1, 3, "sum", "'index'"),
        (VALUES, INDEX.float(), 3, "sum", "'index'"),
    ],
)
def test_what_is_refused(values, index, count, reduction, named):
    with pytest.raises(ValueError, match=named):
        segment_reduce(values, index, count, reduction)
