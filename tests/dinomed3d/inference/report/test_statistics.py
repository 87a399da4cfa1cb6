"""Statistics of labels, by hand and against NumPy."""

import numpy as np
import pytest

from dinomed3d.inference.report.statistics import (
    are_statistics,
    label_statistics,
    statistics_columns,
)


def test_by_hand():
    mask = np.array([[[0, 1, 1]], [[2, 2, 1]]], np.uint8)
    ct = np.array([[[-1000, 10, 20]], [[5, 7, np.nan]]], np.float32)
    labels = {"a": [1], "both": [1, 2], "none": [9]}
    found = label_statistics(mask, [ct], labels, names=["CT"], voxel_ml=0.5)
    assert found["a"] == {
        **{"volume_mm3": 1500, "volume_ml": 1.5},
        "intensities": {"CT": {"mean": 15, "std": 5}},
    }
    # 10, 20, 5, 7: mean 10.5; squares 0.25 + 90.25 + 30.25 + 12.25 = 133, a quarter of it 33.25
    assert found["both"]["volume_ml"] == 2.5
    assert found["both"]["intensities"]["CT"] == {
        **{"mean": 10.5, "std": pytest.approx(33.25**0.5, rel=1e-6)},
    }
    assert found["none"]["volume_mm3"] == 0
    assert found["none"]["intensities"]["CT"] == {"mean": None, "std": None}


def test_large_offsets_keep_their_digits_and_channels_their_names():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 3, (4, 5, 6)).astype(np.uint16)
    channels = [rng.normal(1e6, 1, mask.shape).astype(np.float32) for _ in range(2)]
    labels = {"a": [1], "whole": [1, 2]}
    found = label_statistics(mask, channels, labels, names=["MR", "MR"], voxel_ml=1)
    assert list(found["a"]["intensities"]) == ["MR 0", "MR 1"]
    for name, values in labels.items():
        for channel, entry in zip(channels, found[name]["intensities"].values(), strict=True):
            chosen = channel[np.isin(mask, values)].astype(np.float64)
            assert entry == {
                "mean": pytest.approx(chosen.mean(), rel=1e-6),
                "std": pytest.approx(chosen.std(), rel=1e-5),
            }
    columns = statistics_columns({"statistics": {"labels": found}})
    assert columns["whole_MR 1_mean"] == found["whole"]["intensities"]["MR 1"]["mean"]
    assert are_statistics({"labels": found})


@pytest.mark.parametrize(
    "content",
    [3, {}, {"labels": {"a": {}}}, {"labels": {"a": {"intensities": {"CT": {"mean": "x"}}}}}],
)
def test_entries_of_other_forms(content):
    assert not are_statistics(content)
