"""Losses and class weights."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pointseg.training.step import losses
from pointseg.training.step.losses import (
    class_weights,
    cross_entropy,
    lovasz_loss,
    lovasz_softmax,
    segmentation_loss,
)

# Class frequencies of SemanticKITTI, and the class weights that DITR's configuration has.
KITTI_SHARES = [
    0.0426, 0.000166, 0.000398, 0.00216, 0.00181, 0.000338, 0.000127, 0.0000375, 0.1988, 0.0147, 0.1439,
    0.0039, 0.1327, 0.0724, 0.2668, 0.00604, 0.0781, 0.00286, 0.000616,
]  # fmt: skip
KITTI_WEIGHTS = [
    3.1557, 8.7029, 7.8281, 6.1354, 6.3161, 7.9937, 8.9704, 10.1922, 1.6155, 4.2187, 1.9385, 5.5455, 2.0198,
    2.6261, 1.3212, 5.1102, 2.5492, 5.8585, 7.3929,
]  # fmt: skip


def batch(count=60, classes=5, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, classes, generator=generator, dtype=dtype) * 2
    segment = torch.randint(-1, classes - 1, (count,), generator=generator)  # the last never occurs
    return logits, segment


def jaccard(mistaken, inside):
    """1 - IoU of a class if just these points are mistaken (Berman 2018, eq. 6)."""
    return len(mistaken) / len(inside | mistaken)


def lovasz_by_definition(probability, segment):
    """The Lovasz extension by its integral: of the loss of all points whose error exceeds t, over t in 0 to 1."""
    kept = segment != -1
    probability, segment = probability[kept].tolist(), segment[kept].tolist()
    values = []
    for c in sorted(set(segment)):
        error = [1 - p[c] if s == c else p[c] for p, s in zip(probability, segment, strict=True)]
        inside = {i for i, s in enumerate(segment) if s == c}
        levels = sorted({0.0, 1.0, *error})
        value = 0.0
        for low, high in zip(levels, levels[1:], strict=False):
            mistaken = {i for i, e in enumerate(error) if e > (low + high) / 2}
            value += (high - low) * jaccard(mistaken, inside)
        values.append(value)
    return sum(values) / len(values)


def test_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [5.0, -5.0]])
    segment = torch.tensor([0, 1, -1])
    torch.testing.assert_close(
        cross_entropy(logits, segment), torch.tensor((math.log(2) + math.log(4)) / 2)
    )
    weights = torch.tensor([1.0, 3.0])
    torch.testing.assert_close(
        cross_entropy(logits, segment, weights=weights),
        torch.tensor((math.log(2) + 3 * math.log(4)) / 4),
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_pytorchs(weighted):
    logits, segment = batch()
    weights = torch.tensor([0.5, 1.0, 2.0, 4.0, 8.0], dtype=torch.float64) if weighted else None
    torch.testing.assert_close(
        cross_entropy(logits, segment, weights=weights),
        F.cross_entropy(logits, segment, weights, ignore_index=-1),
    )


def test_lovasz_by_hand():
    """Two points of class 0, one of class 1, errors .25, .75 and .5 for class 0."""
    probability = torch.tensor([[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]])
    # Class 0: from the largest error, 1 - IoU is 1/2 with the second point mistaken, 2/3 with the
    # third as well, 1 with all: .75 * 1/2 + .5 * (2/3 - 1/2) + .25 * (1 - 2/3).
    # Class 1, whose only point is the third: the second, .75, makes it 1/2; the third, .5, makes it 1.
    first, second = 0.375 + 0.5 / 6 + 0.25 / 3, 0.375 + 0.25
    torch.testing.assert_close(
        lovasz_loss(probability, torch.tensor([0, 0, 1])), torch.tensor((first + second) / 2)
    )


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_is_its_definition(seed):
    logits, segment = batch(seed=seed)
    wanted = lovasz_by_definition(logits.softmax(1), segment)
    assert lovasz_softmax(logits, segment).item() == pytest.approx(wanted, rel=1e-9)
    single = lovasz_softmax(logits.float(), segment)
    assert single.item() == pytest.approx(wanted, rel=1e-5)


def test_lovasz_with_equal_errors_is_its_definition():
    probability = (
        torch.randint(0, 5, (80, 3), generator=torch.Generator().manual_seed(0)) / 4
    ).double()
    segment = torch.arange(80) % 3
    wanted = lovasz_by_definition(probability, segment)
    assert lovasz_loss(probability, segment).item() == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_lovasz_of_hard_predictions_is_one_minus_iou(seed):
    generator = torch.Generator().manual_seed(seed)
    guess = torch.randint(0, 4, (200,), generator=generator)
    segment = torch.randint(-1, 3, (200,), generator=generator)
    kept = segment != -1
    ious = []
    for c in range(3):
        both = ((guess == c) & (segment == c) & kept).sum()
        ious.append((both / (((guess == c) | (segment == c)) & kept).sum()).item())
    loss = lovasz_loss(F.one_hot(guess, 4).double(), segment)
    assert loss.item() == pytest.approx(1 - np.mean(ious), abs=1e-7)


def test_lovasz_of_perfect_and_of_wrong_predictions():
    segment = torch.tensor([0, 1, 2, 1])
    assert lovasz_loss(F.one_hot(segment, 3).float(), segment) == 0
    wrong = lovasz_loss(F.one_hot((segment + 1) % 3, 3).float(), segment)
    assert wrong.item() == pytest.approx(1)


@pytest.mark.parametrize("loss", [cross_entropy, lovasz_softmax])
def test_the_order_of_points_and_ignored_points_do_not_matter(loss):
    logits, segment = batch()
    shuffle = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(loss(logits, segment), loss(logits[shuffle], segment[shuffle]))
    kept = segment != -1
    torch.testing.assert_close(loss(logits, segment), loss(logits[kept], segment[kept]))


@pytest.mark.parametrize("loss", [cross_entropy, lovasz_softmax])
def test_gradients_are_those_of_finite_differences(loss):
    logits, segment = batch(count=20)
    assert torch.autograd.gradcheck(lambda x: loss(x, segment), logits.requires_grad_())
    (gradient,) = torch.autograd.grad(loss(logits, segment), logits)
    assert (gradient[segment == -1] == 0).all()


def test_lovasz_in_parts_is_lovasz_at_once(monkeypatch):
    logits, segment = batch(count=500, classes=9)
    logits.requires_grad_()
    wanted = lovasz_softmax(logits, segment)
    (gradient,) = torch.autograd.grad(wanted, logits)
    monkeypatch.setattr(losses, "_SORTED_AT_ONCE", 1200)
    parts = lovasz_softmax(logits, segment)
    torch.testing.assert_close(parts, wanted)
    torch.testing.assert_close(torch.autograd.grad(parts, logits)[0], gradient)


def test_the_fast_order_is_that_of_argsort():
    generator = torch.Generator().manual_seed(0)
    errors = torch.rand(4, 1000, generator=generator)
    errors[1] = (errors[1] * 8).round() / 8  # many equal ones
    errors[2, ::3] = -1
    errors[3, :4] = torch.tensor([0.0, 1.0, 1e-45, 1.4e-38])
    wanted = torch.argsort(errors, dim=1, descending=True, stable=True)
    assert torch.equal(losses._from_the_largest(errors), wanted)
    assert torch.equal(losses._from_the_largest(errors.T.contiguous().T), wanted)


def test_gradients_in_single_precision_are_those_in_double():
    logits, segment = batch(count=4000, classes=8)
    found = []
    for values in (logits.float().requires_grad_(), logits.clone().requires_grad_()):
        found += torch.autograd.grad(lovasz_softmax(values, segment), values)
    torch.testing.assert_close(found[0].double(), found[1], rtol=1e-3, atol=1e-8)


def test_ignored_points_have_no_gradient_where_a_prediction_is_perfect():
    probability = torch.tensor([[0.7, 0.3], [1.0, 0.0]], requires_grad=True)
    lovasz_loss(probability, torch.tensor([-1, 0])).backward()
    assert not probability.grad[0].any()


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 3.0])])
@pytest.mark.parametrize("count", [0, 7])
def test_without_labels_the_loss_is_zero_and_so_is_its_gradient(weights, count):
    logits = torch.randn(count, 3, requires_grad=True)
    found = segmentation_loss(logits, torch.full((count,), -1), weights=weights)
    assert set(found) == {"loss", "cross_entropy", "lovasz"}
    for value in found.values():
        assert value.item() == 0
    found["loss"].backward()
    assert torch.equal(logits.grad, torch.zeros(count, 3))


def test_only_classes_of_no_weight_are_no_loss():
    loss = cross_entropy(torch.randn(2, 2), torch.tensor([0, 0]), weights=torch.tensor([0.0, 1.0]))
    assert loss == 0


def test_the_sum():
    logits, segment = batch()
    found = segmentation_loss(logits, segment, lovasz=0.5)
    torch.testing.assert_close(found["cross_entropy"], cross_entropy(logits, segment))
    torch.testing.assert_close(found["lovasz"], lovasz_softmax(logits, segment))
    torch.testing.assert_close(found["loss"], found["cross_entropy"] + 0.5 * found["lovasz"])
    assert set(segmentation_loss(logits, segment, lovasz=0)) == {"loss", "cross_entropy"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    logits, segment = batch(count=3000)
    logits = logits.to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        found = segmentation_loss(logits.requires_grad_(), segment)
    wanted = segmentation_loss(logits.double(), segment)
    assert found["loss"].dtype == torch.float32
    assert found["loss"].item() == pytest.approx(wanted["loss"].item(), rel=1e-5)
    found["loss"].backward()
    assert logits.grad.dtype == dtype


@pytest.mark.parametrize("loss", [cross_entropy, lovasz_softmax])
def test_wrong_labels_and_shapes_are_refused(loss):
    logits = torch.zeros(3, 4)
    with pytest.raises(ValueError, match="0 to 3, or -1 where ignored, got 4 in 2 points"):
        loss(logits, torch.tensor([0, 4, 4]))
    with pytest.raises(ValueError, match="got -2 in 1 points"):
        loss(logits, torch.tensor([0, -2, 1]))
    with pytest.raises(ValueError, match=r"\(N, K\) and 'segment' \(N,\)"):
        loss(logits, torch.tensor([0, 1]))


def test_class_weights_are_semantickittis():
    counts = np.round(np.array(KITTI_SHARES) * 1e9).astype(np.int64)
    weights = class_weights(counts, "log", total=10**9)
    # The shares are given to three or four digits: half of the last one is at most 0.5 %.
    np.testing.assert_allclose(weights, KITTI_WEIGHTS, atol=0.005)
    assert torch.equal(weights, class_weights(counts, "auto", total=10**9))


def test_class_weights_by_hand():
    counts = np.array([75, 25, 0])
    assert class_weights(counts, "none") is None
    log, root = class_weights(counts, "auto"), class_weights(counts, "sqrt")
    torch.testing.assert_close(log, -torch.tensor([0.75, 0.25, 0.01]).log())
    torch.testing.assert_close(root, torch.tensor([0.75, 0.25, 0.01]) ** -0.5)
    with_ignored = class_weights(counts, "auto", total=200)
    torch.testing.assert_close(with_ignored, -torch.tensor([0.375, 0.125, 0.005]).log())


@pytest.mark.parametrize(
    ("counts", "kind", "total", "match"),
    [
        ([1, 2], "best", None, "'kind' must be none, auto, log or sqrt"),
        ([0, 7], "auto", None, "two classes or more"),
        ([-1, 7, 3], "auto", None, "'counts' must be >= 0"),
        ([[1, 2]], "sqrt", None, "'counts' must"),
        ([4, 7], "auto", 10, "'total' must be >= 11"),
    ],
)
def test_class_weights_refuse(counts, kind, total, match):
    with pytest.raises(ValueError, match=match):
        class_weights(np.array(counts), kind, total=total)


def test_smoothed_labels_by_hand():
    """Two classes, one point of log-odds ln 3 for its label: -log p is ln 4/3 there, ln 4 at the other."""
    logits, segment = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([0])
    found = cross_entropy(logits, segment, smoothing=0.2)
    assert found.item() == pytest.approx(0.9 * math.log(4 / 3) + 0.1 * math.log(4))
    # of a point without a label nothing is spread
    more = torch.cat([logits, torch.tensor([[5.0, -5.0]])])
    alike = cross_entropy(more, torch.tensor([0, -1]), smoothing=0.2)
    torch.testing.assert_close(alike, found)
    weights = torch.tensor([2.0, 4.0])
    found = cross_entropy(logits, segment, weights=weights, smoothing=0.2)
    assert found.item() == pytest.approx((0.9 * 2 * math.log(4 / 3) + 0.1 * 4 * math.log(4)) / 2)
