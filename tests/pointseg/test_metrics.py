"""The confusion matrix and what is read from it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from sklearn import metrics

from pointseg.metrics import Confusion

LABEL = np.array([0, 0, 0, 1, 1, -1, -1])
GUESS = np.array([0, 0, 1, 1, 1, 3, 0])
NAMES = ["wall", "floor", "chair", "picture"]


def counted(guess=GUESS, label=LABEL, classes=4):
    confusion = Confusion(classes)
    confusion.add(guess, label)
    return confusion


def drawn(count=3000, classes=6, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(-1, classes, count)
    guess = np.where(rng.random(count) < 0.6, label.clip(0), rng.integers(0, classes, count))
    return guess, label


def test_by_hand():
    confusion = counted()
    assert confusion.matrix.tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [0] * 4, [0] * 4]
    np.testing.assert_allclose(confusion.iou(), [2 / 3, 2 / 3, np.nan, np.nan])
    np.testing.assert_allclose(confusion.recall(), [2 / 3, 1, np.nan, np.nan])
    np.testing.assert_allclose(confusion.precision(), [1, 2 / 3, np.nan, np.nan])
    np.testing.assert_allclose(confusion.f1(), [4 / 5, 4 / 5, np.nan, np.nan])
    assert confusion.kappa() == pytest.approx((4 / 5 - 12 / 25) / (1 - 12 / 25))
    assert confusion.miou() == pytest.approx(1 / 3)  # absent classes are 0
    assert confusion.miou_present() == pytest.approx(2 / 3)  # or left out
    assert confusion.accuracy() == pytest.approx(4 / 5)
    assert confusion.mean_accuracy() == pytest.approx((2 / 3 + 1) / 4)
    assert confusion.mean_accuracy_present() == pytest.approx((2 / 3 + 1) / 2)
    assert confusion.miou([1, 2]) == pytest.approx(1 / 3)
    assert confusion.miou_present([1, 2]) == pytest.approx(2 / 3)
    assert math.isnan(confusion.miou_present([2, 3]))


def test_a_class_that_is_only_predicted_is_not_absent():
    confusion = counted(np.array([0, 2]), np.array([0, 0]), classes=3)
    np.testing.assert_allclose(confusion.iou(), [0.5, np.nan, 0])
    assert confusion.miou_present() == pytest.approx(0.25)
    np.testing.assert_allclose(confusion.recall(), [0.5, np.nan, np.nan])
    np.testing.assert_allclose(confusion.precision(), [1, np.nan, 0])
    np.testing.assert_allclose(confusion.f1(), [2 / 3, np.nan, 0])
    assert confusion.kappa() == 0  # a reference of one class: chance agrees as often


@pytest.mark.parametrize("seed", range(3))
def test_as_scikit_learn_has_it(seed):
    guess, label = drawn(seed=seed)
    kept, classes = label != -1, list(range(6))
    confusion = counted(guess, label, classes=6)
    guess, label = guess[kept], label[kept]
    np.testing.assert_array_equal(
        confusion.matrix, metrics.confusion_matrix(label, guess, labels=classes)
    )
    np.testing.assert_allclose(confusion.iou(), metrics.jaccard_score(label, guess, average=None))
    np.testing.assert_allclose(
        confusion.precision(), metrics.precision_score(label, guess, average=None)
    )
    np.testing.assert_allclose(confusion.f1(), metrics.f1_score(label, guess, average=None))
    assert confusion.kappa() == pytest.approx(metrics.cohen_kappa_score(label, guess))
    assert confusion.miou() == pytest.approx(metrics.jaccard_score(label, guess, average="macro"))
    assert confusion.accuracy() == pytest.approx(metrics.accuracy_score(label, guess))
    assert confusion.mean_accuracy() == pytest.approx(metrics.balanced_accuracy_score(label, guess))


def test_absent_classes_as_scikit_learn_has_them():
    kept = LABEL != -1
    score = metrics.jaccard_score(
        LABEL[kept], GUESS[kept], labels=range(4), average="macro", zero_division=0
    )
    assert counted().miou() == pytest.approx(score)


def test_ignored_points_do_not_count_whatever_was_predicted_for_them():
    guess, label = drawn()
    wanted = counted(guess, label, classes=6).matrix
    for anything in (
        0,
        5,
        6,
        -1,
        255,
    ):  # 6: the number of classes, where a shared histogram would slip
        changed = np.where(label == -1, anything, guess)
        np.testing.assert_array_equal(counted(changed, label, classes=6).matrix, wanted)


def test_a_label_equal_to_the_number_of_classes_is_refused_not_ignored():
    """Histograms over 0 to K - 1 leave label K out of the unions, but not its predictions (Pointcept #572)."""
    with pytest.raises(
        ValueError, match="'label' must be in 0 to 2, or -1 where ignored, got 3 in 2 points"
    ):
        counted(np.array([0, 1, 1]), np.array([0, 3, 3]), classes=3)


def test_parts_merge_to_the_whole():
    guess, label = drawn()
    whole, first, second = counted(guess, label, classes=6), Confusion(6), Confusion(6)
    first.add(guess[:1000], label[:1000])
    second.add(guess[1000:2000], label[1000:2000])
    second.add(guess[2000:], label[2000:])
    first.merge(second)
    np.testing.assert_array_equal(first.matrix, whole.matrix)
    assert first.matrix.dtype == np.int64
    np.testing.assert_array_equal(Confusion.of(whole.matrix).matrix, whole.matrix)


def test_it_is_not_the_mean_of_the_means():
    """Six-fold protocol: sums of intersections and unions, then IoU."""
    one, other = counted(np.array([0, 0, 1]), np.array([0, 0, 0]), 2), Confusion(2)
    other.add(np.array([1]), np.array([1]))
    parts = (one.miou() + other.miou()) / 2
    one.merge(other)
    assert one.miou() == pytest.approx((2 / 3 + 1 / 2) / 2) and one.miou() != pytest.approx(parts)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
def test_tensors_and_arrays_alike(dtype):
    guess, label = drawn()
    confusion = Confusion(6)
    confusion.add(torch.from_numpy(guess).to(dtype), torch.from_numpy(label))
    np.testing.assert_array_equal(confusion.matrix, counted(guess, label, classes=6).matrix)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">i4", "i8"])
def test_arrays_of_any_integer_type(dtype):
    label = np.full(300, 199, dtype)
    label.setflags(write=False)
    assert counted(label, label, classes=200).matrix[199, 199] == 300


def test_without_points():
    confusion = counted(np.zeros(0, int), np.zeros(0, int))
    assert confusion.miou() == 0 and math.isnan(confusion.miou_present())
    assert math.isnan(confusion.accuracy()) and confusion.mean_accuracy() == 0
    assert math.isnan(confusion.kappa()) and math.isnan(confusion.precision()[0])
    assert math.isnan(counted(np.zeros(3, int), np.zeros(3, int)).kappa())
    assert confusion.as_dict(NAMES)["accuracy"] is None
    assert "-" in confusion.table(NAMES)


def test_as_dict_is_json():
    found = json.loads(json.dumps(counted().as_dict(NAMES), allow_nan=False))
    assert found["points"] == 5 and found["miou"] == pytest.approx(1 / 3)
    assert found["iou"]["picture"] is None and found["recall"]["floor"] == 1


def test_table():
    lines = counted().table(NAMES).splitlines()
    assert [line.split() for line in lines if not line.startswith("-")] == [
        ["class", "IoU", "recall", "points"],
        ["wall", "66.67", "66.67", "3"],
        ["floor", "66.67", "100.00", "2"],
        ["chair", "-", "-", "0"],
        ["picture", "-", "-", "0"],
        ["mean,", "absent", "as", "0", "33.33", "41.67"],
        ["mean", "of", "present", "66.67", "83.33"],
        ["all", "points", "80.00", "5"],
    ]


def test_refused():
    confusion = Confusion(3)
    with pytest.raises(ValueError, match="'num_classes' must be >= 1"):
        Confusion(0)
    with pytest.raises(ValueError, match="'prediction' must be in 0 to 2, got 3 in 1 points"):
        confusion.add(np.array([3]), np.array([0]))
    with pytest.raises(ValueError, match="got -2 in 1 points"):
        confusion.add(np.array([0]), np.array([-2]))
    with pytest.raises(ValueError, match=r"must be \(N,\), got \(2,\) and \(3,\)"):
        confusion.add(np.zeros(2, int), np.zeros(3, int))
    with pytest.raises(ValueError, match="'prediction' must be integers, got torch.float32"):
        confusion.add(torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="'other' must have 3 classes, got 4"):
        confusion.merge(Confusion(4))
    with pytest.raises(ValueError, match=r"'matrix' must be \(K, K\) counts"):
        Confusion.of(np.zeros((2, 3), int))
    with pytest.raises(ValueError, match=r"'matrix' must be \(K, K\) counts"):
        Confusion.of(np.zeros((2, 2)))
    for read in (confusion.as_dict, confusion.table):
        with pytest.raises(ValueError, match="'names' must be 3"):
            read(["a"])
    assert confusion.matrix.sum() == 0  # nothing of what was refused was counted
