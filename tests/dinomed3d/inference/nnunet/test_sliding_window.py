"""The sliding window: where it goes, and that its layers give what the whole would."""

import numpy as np
import pytest
import torch
from nnunetv2.inference.sliding_window_prediction import (
    compute_gaussian,
    compute_steps_for_sliding_window,
)

import dinomed3d.inference.nnunet.sliding_window as windows
from dinomed3d.inference.case import CaseError
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, gaussian, sweep, window_starts


def test_starts_by_hand():
    # patch 64 in 110 at half a patch: at most 32 apart, three windows, evenly
    assert window_starts(110, 64, 0.5) == [0, 23, 46]
    assert window_starts(64, 64, 0.5) == [0]
    assert window_starts(10, 4, 1.0) == [0, 3, 6]


def test_starts_equal_nnunet():
    rng = np.random.default_rng(0)
    for _ in range(200):
        patch = int(rng.integers(1, 60))
        size = patch + int(rng.integers(0, 200))
        step = float(rng.uniform(0.05, 1))
        expected = compute_steps_for_sliding_window((size,), (patch,), step)[0]
        assert window_starts(size, patch, step) == expected


@pytest.mark.parametrize("patch", [(8, 12, 10), (16, 20)])
def test_gaussian_equals_nnunet(patch):
    expected = compute_gaussian(patch, value_scaling_factor=10, device=torch.device("cpu"))
    assert torch.equal(gaussian(patch), expected)
    assert gaussian(patch).max() == 10 and gaussian(patch).min() > 0


def whole(data, layers, predict, heads):
    """All windows into one array, as nnU-Net does."""
    weights = gaussian(layers.patch[1:] if layers.flat else layers.patch).reshape(layers.patch)
    total = torch.zeros((heads, *layers.size), dtype=torch.half)
    count = torch.zeros(layers.size, dtype=torch.half)
    d, h, w = layers.patch
    for z in layers.starts[0]:
        for y in layers.starts[1]:
            for x in layers.starts[2]:
                place = (slice(None), slice(z, z + d), slice(y, y + h), slice(x, x + w))
                window = data[place].squeeze(1) if layers.flat else data[place]
                logits = predict(window[None])[0]
                logits = logits.unsqueeze(1) if layers.flat else logits
                total[place] += logits * weights
                count[place[1:]] += weights
    return total.float() / count.float()


def stream(batches):
    return (predict(windows) for windows, _ in batches)


def predict(window):
    """Depends on where in the window a voxel lies, so that weights matter; two heads."""
    ramp = torch.arange(window.shape[-1], dtype=torch.float32)
    return torch.cat([window * 2 + ramp, window.flip(-1) - ramp], 1)


@pytest.mark.parametrize("patch", [(6, 8, 7), (9, 14, 12), (8, 7)])
@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 4])
def test_sweep_equals_the_whole(patch, step, batch, monkeypatch):
    monkeypatch.setattr(windows, "SLAB_LOGITS", 700)
    monkeypatch.setattr(windows, "CHUNK", 300)
    torch.manual_seed(0)
    data = torch.randn(1, 17, 14, 12)
    layers = WindowGrid.over((17, 14, 12), patch, step)
    expected = whole(data, layers, predict, 2)
    for band in ((0, 14), (0, 5), (5, 9), (9, 14)):
        slabs = list(sweep(data, layers, band, stream, heads=2, batch=batch))
        assert [s.first for s in slabs] == sorted({s.first for s in slabs})
        result = torch.cat([slab.logits for slab in slabs], 1)
        assert result.shape == (2, 17, band[1] - band[0], 12)
        torch.testing.assert_close(result, expected[:, :, slice(*band)], atol=2e-2, rtol=1e-3)


def test_a_band_meets_only_windows_that_touch_it():
    layers = WindowGrid.over((6, 20, 6), (6, 8, 6), 0.5)
    assert layers.starts[1] == (0, 4, 8, 12)
    assert layers.touching((0, 4)) == [0]
    assert layers.touching((4, 5)) == [0, 4]
    assert layers.touching((16, 20)) == [12]


def test_what_is_not_finite_is_an_error():
    layers = WindowGrid.over((4, 4, 4), (4, 4, 4), 0.5)
    for value in (torch.nan, torch.inf, 1e5):
        with pytest.raises(CaseError, match="not finite"):
            list(sweep(torch.full((1, 4, 4, 4), value), layers, (0, 4), stream, heads=2, batch=1))
