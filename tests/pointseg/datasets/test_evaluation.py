"""Scores of confusion matrices, worked by hand and against scikit-learn's."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pointseg.datasets.dataset import ClassList
from pointseg.datasets.evaluation import class_iou, group_iou, mean_iou, sum_folds

# Class 0: 3 hits of 3 + 1 + 1; class 1: 2 of 2 + 1 + 1; class 2: never.
BY_HAND = np.array([[3, 1, 0], [1, 2, 0], [0, 0, 0]])


def test_iou_by_hand_and_both_conventions_for_absent_classes() -> None:
    iou = class_iou(BY_HAND)
    assert iou[:2].tolist() == [0.6, 0.5] and math.isnan(iou[2])
    assert mean_iou(BY_HAND).absent_as_zero == pytest.approx(1.1 / 3)
    assert mean_iou(BY_HAND).present_only == pytest.approx(0.55)
    assert mean_iou(BY_HAND, [1, 2]).absent_as_zero == 0.25
    assert mean_iou(BY_HAND, [1, 2]).present_only == 0.5
    nothing = mean_iou(BY_HAND, [2])
    assert nothing.absent_as_zero == 0 and math.isnan(nothing.present_only)


def test_a_class_that_is_only_predicted_counts_as_0_in_both() -> None:
    found = mean_iou(np.array([[3, 1], [0, 0]]))
    assert found.absent_as_zero == found.present_only == 0.375


def test_groups() -> None:
    classes = ClassList(("a", "b", "c"), np.zeros((3, 3), np.uint8), {"head": (0,), "tail": (1, 2)})
    found = group_iou(BY_HAND, classes)
    assert list(found) == ["all", "head", "tail"]
    assert found["head"].absent_as_zero == 0.6
    assert (found["tail"].absent_as_zero, found["tail"].present_only) == (0.25, 0.5)
    assert found["all"] == mean_iou(BY_HAND)


def test_folds_are_summed_before_the_iou() -> None:
    easy, hard = np.array([[90, 0], [0, 10]]), np.array([[0, 1], [0, 1]])
    summed = mean_iou(sum_folds([easy, hard])).absent_as_zero
    assert summed == pytest.approx((90 / 91 + 11 / 12) / 2)
    mean_of_means = (1 + (0 + 0.5) / 2) / 2
    assert summed != pytest.approx(mean_of_means, abs=0.1)


def test_iou_is_scikit_learns() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    label, guess = rng.integers(0, 5, 1000), rng.integers(0, 5, 1000)
    expected = metrics.jaccard_score(label, guess, average=None)
    assert class_iou(metrics.confusion_matrix(label, guess)) == pytest.approx(expected)


def test_what_is_no_confusion_matrix_is_refused() -> None:
    for wrong in (np.zeros((2, 3), int), np.zeros((2, 2)), np.array([[-1]]), np.zeros((0, 0), int)):
        with pytest.raises(ValueError, match=r"must be \(K, K\) counts"):
            class_iou(wrong)
    with pytest.raises(ValueError, match="'classes' must be some of 0 to 2"):
        mean_iou(BY_HAND, [3])
    with pytest.raises(ValueError, match="'classes' must be some of 0 to 2"):
        mean_iou(BY_HAND, [])
    with pytest.raises(ValueError, match="at least one matrix"):
        sum_folds([])
    with pytest.raises(ValueError, match="must have one shape"):
        sum_folds([BY_HAND, np.eye(2, dtype=int)])
    with pytest.raises(ValueError, match=r"must be \(2, 2\), got \(3, 3\)"):
        group_iou(BY_HAND, ClassList(("a", "b"), np.zeros((2, 3), np.uint8)))
