"""Features as colours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from pointseg.pictures.pca import Panel, components, draw_features, write_features
from pointseg.pictures.sheets import UNNAMED


def spread(rows, *scales, seed=0):
    """Rows whose columns vary by so much, independently."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, len(scales), generator=generator) * torch.tensor(scales)


def test_by_hand_the_longest_axis_is_red():
    features = torch.tensor([[0.0, -2.0], [0.0, 2.0], [1.0, 0.0], [-1.0, 0.0]])
    found = components([features])
    np.testing.assert_allclose(np.abs(found.axes), [[0, 1, 0], [1, 0, 0]], atol=1e-6)
    colors = found.colors(features)
    assert colors[0, 0] == 0 and colors[1, 0] == 255  # along the second channel
    assert colors[2, 1] == 255 and colors[3, 1] == 0  # then along the first
    assert set(colors[:, 2].tolist()) == {128}  # there is no third direction


def test_components_are_those_of_an_exact_decomposition():
    features = spread(3000, 5.0, 3.0, 2.0, 1.8, 1.5, 1.0, 0.5, 0.4, 0.3, 0.2)
    turn = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(1)))[0]
    features = features @ turn
    found = components([features])
    exact = torch.linalg.svd(features - features.mean(0), full_matrices=False).Vh[:3]
    alike = np.abs(np.sum(exact.T.numpy() * found.axes, axis=0))
    np.testing.assert_allclose(alike, 1, atol=1e-3)
    assert (found.axes[np.abs(found.axes).argmax(0), range(3)] > 0).all()


def test_the_same_each_time_and_where_the_order_of_rows_differs():
    features = spread(500, 4.0, 2.0, 1.0, 0.1)
    colors = components([features]).colors(features)
    assert (colors == components([features]).colors(features)).all()
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    turned = components([features[order]]).colors(features[order]).astype(int)
    assert np.abs(turned - colors[order.numpy()]).max() <= 1


def test_unseen_and_broken_rows_are_grey_and_count_for_nothing():
    features = spread(200, 4.0, 2.0, 1.0)
    wild = torch.cat([features, torch.full((50, 3), 1e6), torch.full((1, 3), float("nan"))])
    seen = torch.arange(251) < 200
    seen[250] = True
    found = components([wild], [seen])
    np.testing.assert_allclose(found.mean, features.mean(0).numpy(), atol=1e-5)
    assert (found.colors(wild, seen)[200:] == UNNAMED).all()
    nothing = components([wild], [torch.zeros(251, dtype=torch.bool)])
    assert (nothing.colors(wild, torch.zeros(251, dtype=torch.bool)) == UNNAMED).all()


def test_sets_with_equal_channels_share_colours_and_directions_ignore_length():
    features = spread(300, 4.0, 2.0, 1.0, 0.5)
    shared = components([features, 7 * features], directions=True)
    assert (shared.colors(features) == shared.colors(7 * features)).all()
    picture = draw_features(
        np.random.default_rng(0).random((300, 3)),
        [Panel(title="lifted", features=features), Panel(title="distilled", features=3 * features)],
        size=(80, 60),
    )
    left, right = np.array(picture)[-60:, :80], np.array(picture)[-60:, -80:]
    assert (left == right).all()


def test_a_sheet_is_written(tmp_path):
    coord = np.random.default_rng(0).random((100, 3))
    panel = Panel(title="points", features=spread(100, 3.0, 2.0, 1.0), seen=torch.arange(100) < 50)
    path = tmp_path / "made" / "pca.png"
    write_features(path, coord, [panel])
    with Image.open(path) as picture:
        assert np.asarray(picture).std() > 10
    assert [p.name for p in path.parent.iterdir()] == ["pca.png"]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda: components([]), "'features'"),
        (lambda: components([torch.zeros(2, 3), torch.zeros(2, 4)]), r"\[3, 4\]"),
        (lambda: components([torch.zeros(2)]), r"\(N, C\)"),
        (lambda: components([torch.zeros(2, 3)], [torch.ones(3)]), "'seen'"),
        (lambda: components([torch.zeros(2, 3)]).colors(torch.zeros(2, 4)), "'features'"),
        (lambda: draw_features(np.zeros((1, 3)), []), "'panels'"),
        (
            lambda: draw_features(np.zeros((1, 3)), [Panel(title="a", features=torch.ones(2, 3))]),
            "'a'",
        ),
    ],
)
def test_wrong_input(call, named):
    with pytest.raises(ValueError, match=named):
        call()
