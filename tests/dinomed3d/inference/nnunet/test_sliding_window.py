"""The sliding window: where it goes, and that chunks equal the whole."""

import pytest
import torch

import dinomed3d.inference.nnunet.sliding_window as windows
from dinomed3d.inference.case import CaseError
from dinomed3d.inference.nnunet.sliding_window import WindowGrid, predict_windows, window_starts


def test_starts_by_hand():
    # patch 64 in 110 at half a patch: at most 32 apart, three windows, evenly
    assert window_starts(110, 64, 0.5) == [0, 23, 46]
    assert window_starts(64, 64, 0.5) == [0]
    assert window_starts(10, 4, 1.0) == [0, 3, 6]


def whole(data, grid, predict, heads):
    """All windows into one array, as nnU-Net does."""
    weights = grid.weights.half()
    total = torch.zeros((heads, *grid.size), dtype=torch.half)
    count = torch.zeros(grid.size, dtype=torch.half)
    d, h, w = grid.patch
    for z in grid.starts[0]:
        for y in grid.starts[1]:
            for x in grid.starts[2]:
                place = (slice(None), slice(z, z + d), slice(y, y + h), slice(x, x + w))
                window = data[place].squeeze(1) if grid.is_2d else data[place]
                logits = predict(window[None])[0]
                logits = logits.unsqueeze(1) if grid.is_2d else logits
                total[place] += logits * weights
                count[place[1:]] += weights
    return total.float() / count.float()


def stream(batches):
    return (predict(windows) for windows, *_ in batches)


def predict(window):
    """Depends on where in the window a voxel lies, so that weights matter; two heads."""
    ramp = torch.arange(window.shape[-1], dtype=torch.float32)
    return torch.cat([window * 2 + ramp, window.flip(-1) - ramp], 1)


@pytest.mark.parametrize("patch", [(6, 8, 7), (9, 14, 12), (8, 7)])
@pytest.mark.parametrize("step", [0.3, 0.5, 1.0])
@pytest.mark.parametrize("batch", [1, 4])
def test_row_ranges_equal_the_whole(patch, step, batch, monkeypatch):
    monkeypatch.setattr(windows, "CHUNK_LOGITS", 700)
    monkeypatch.setattr(windows, "CACHED_LOGITS", 300)
    torch.manual_seed(0)
    data = torch.randn(1, 17, 14, 12)
    grid = WindowGrid.over((17, 14, 12), patch, step)
    expected = whole(data, grid, predict, 2)
    for rows in ((0, 14), (0, 5), (5, 9), (9, 14)):
        chunks = list(predict_windows(data, grid, rows, stream, heads=2, batch=batch))
        assert [s.first for s in chunks] == sorted({s.first for s in chunks})
        result = torch.cat([chunk.logits for chunk in chunks], 1)
        assert result.shape == (2, 17, rows[1] - rows[0], 12)
        torch.testing.assert_close(result, expected[:, :, slice(*rows)], atol=2e-2, rtol=1e-3)


def test_a_row_range_needs_only_windows_that_reach_it():
    grid = WindowGrid.over((6, 20, 6), (6, 8, 6), 0.5)
    assert grid.starts[1] == (0, 4, 8, 12)
    assert grid.reaching((0, 4)) == [0]
    assert grid.reaching((4, 5)) == [0, 4]
    assert grid.reaching((16, 20)) == [12]


def test_what_is_not_finite_is_an_error():
    grid = WindowGrid.over((4, 4, 4), (4, 4, 4), 0.5)
    for value in (torch.nan, torch.inf, 1e5):
        with pytest.raises(CaseError, match="not finite"):
            list(
                predict_windows(
                    torch.full((1, 4, 4, 4), value), grid, (0, 4), stream, heads=2, batch=1
                )
            )


def test_windows_bring_the_planes_that_the_volume_has_around_them():
    """Planes hold their number; three windows of four planes in eight, with three more where they are."""
    data = torch.arange(8.0).view(1, 8, 1, 1).expand(1, 8, 4, 4)
    grid = WindowGrid.over((8, 4, 4), (4, 4, 4), 0.5)
    seen = []

    def look(batches):
        for cut, places, halo in batches:
            seen.append((cut[0, 0, :, 0, 0].tolist(), places[0][0], halo))
            yield torch.zeros(1, 2, 4, 4, 4)

    list(predict_windows(data, grid, (0, 4), look, heads=2, batch=1, halo=3))
    assert seen == [
        ([0, 1, 2, 3, 4, 5, 6], 0, (0, 3)),
        ([0, 1, 2, 3, 4, 5, 6, 7], 2, (2, 2)),
        ([1, 2, 3, 4, 5, 6, 7], 4, (3, 0)),
    ]
