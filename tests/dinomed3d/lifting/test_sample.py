"""Reading feature maps at image positions."""

from __future__ import annotations

import pytest
import torch

from dinomed3d.lifting import FeatureMap, sample_bilinear, sample_nearest


def ramp(dtype=torch.float32):
    """Two images of 7 x 10 pixels in cells of 4; the second one holds 0 10 20 | 100 110 120."""
    values = torch.tensor([[0.0, 10, 20], [100, 110, 120]], dtype=dtype)
    return FeatureMap(torch.stack([values - 1, values])[:, None], 4, (7, 10))


@pytest.mark.parametrize(
    ("xy", "value"),
    [
        ((2, 2), 0),  # centre of the first cell
        ((6, 2), 10),
        ((4, 2), 5),  # border between two cells
        ((2, 4), 50),
        ((3, 3), 27.5),  # a quarter of the way along both
        ((0, 0), 0),  # outside the outermost centres they are repeated
        ((12, 8), 120),
        ((-50, 2), 0),
        ((2, 99), 100),
    ],
)
def test_bilinear_by_hand(xy, value):
    sampled = sample_bilinear(ramp(), 1, torch.tensor([xy], dtype=torch.float32))
    torch.testing.assert_close(sampled, torch.tensor([[float(value)]]))


@pytest.mark.parametrize(
    ("xy", "value"),
    [((0, 0), 0), ((3.99, 3.99), 0), ((4, 0), 10), ((11.9, 7.9), 120), ((-5, 99), 100)],
)
def test_nearest_by_hand(xy, value):
    sampled = sample_nearest(ramp(), 1, torch.tensor([xy], dtype=torch.float32))
    assert sampled.tolist() == [[value]]


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
def test_the_view_and_every_channel_are_read(sample):
    features = FeatureMap(torch.arange(12.0).view(2, 3, 1, 2), 16, (16, 32))
    at = torch.tensor([[8.0, 8], [24, 8]])
    assert sample(features, 0, at).tolist() == [[0, 2, 4], [1, 3, 5]]
    assert sample(features, 1, at).tolist() == [[6, 8, 10], [7, 9, 11]]


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
def test_every_position_in_an_image_of_its_own(sample):
    features = FeatureMap(torch.randn(4, 3, 5, 6), 16, (80, 96))
    view, uv = torch.randint(4, (50,)), 100 * torch.rand(50, 2)
    alone = torch.cat([sample(features, int(v), at[None]) for v, at in zip(view, uv, strict=True)])
    assert torch.equal(sample(features, view, uv), alone)


def test_bilinear_is_that_of_torch():
    features = FeatureMap(torch.randn(1, 3, 5, 6), 16, (80, 96))
    uv = 140 * torch.rand(200, 2) - 20
    grid = (2 * uv / torch.tensor([96.0, 80]) - 1)[None, None]
    wanted = torch.nn.functional.grid_sample(
        features.values, grid, padding_mode="border", align_corners=False
    )
    torch.testing.assert_close(sample_bilinear(features, 0, uv), wanted[0, :, 0].T)


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
def test_constant_in_constant_out(sample):
    features = FeatureMap(torch.full((1, 2, 3, 4), 7.0), 16, (40, 60))
    sampled = sample(features, 0, 80 * torch.rand(50, 2))
    torch.testing.assert_close(sampled, torch.full((50, 2), 7.0))


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
def test_no_positions(sample):
    assert sample(ramp(), 0, torch.zeros(0, 2)).shape == (0, 1)


@pytest.mark.parametrize("sample", [sample_bilinear, sample_nearest])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_the_type_of_the_features_is_kept(sample, dtype):
    assert sample(ramp(dtype), 0, torch.tensor([[2.0, 2.0]])).dtype == dtype


def test_positions_are_not_rounded_to_the_precision_of_the_features():
    # 64 cells of 16 pixels, 0 1 0 1 ...: in bfloat16 a position may be two pixels off.
    values = torch.tensor([0.0, 1.0]).repeat(32).view(1, 1, 1, 64)
    at = torch.stack([1024 * torch.rand(100), torch.full((100,), 8.0)], dim=-1)
    exact = sample_bilinear(FeatureMap(values, 16, (16, 1024)), 0, at)
    rough = sample_bilinear(FeatureMap(values.bfloat16(), 16, (16, 1024)), 0, at)
    torch.testing.assert_close(rough.float(), exact, atol=0.004, rtol=0)


def test_gradients_reach_the_cells_by_their_share():
    values = torch.zeros(1, 1, 1, 3, requires_grad=True)
    sample_bilinear(FeatureMap(values, 4, (4, 12)), 0, torch.tensor([[3.0, 2.0]])).sum().backward()
    torch.testing.assert_close(values.grad.flatten(), torch.tensor([0.75, 0.25, 0.0]))
