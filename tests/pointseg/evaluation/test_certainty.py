"""Confidence, entropy and margin of classes: numbers worked by hand, in tiles those of the points that a tile keeps."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pointseg.evaluation import certainty
from pointseg.evaluation.certainty import certainty_of
from tests.pointseg.evaluation.answers import colored
from tests.pointseg.evaluation.test_scene_predictor import predictor

BY_HAND = [
    ([1, 1, 1], [3333, 10000, 0]),
    ([0, 5, 0], [10000, 0, 10000]),
    ([1, 1, 2], [5000, 9464, 2500]),  # 1.0397 of ln 3 = 1.0986
    ([2, 0, 6], [7500, 5119, 5000]),  # 0.5623 of ln 3
    ([0.5, 0.5, 0], [5000, 6309, 0]),  # ln 2 of ln 3
]


@pytest.mark.parametrize("at_once", [3, 2**24], ids=["row by row", "together"])
def test_by_hand(monkeypatch, at_once):
    monkeypatch.setattr(certainty, "AT_ONCE", at_once)
    scores, expected = zip(*BY_HAND, strict=True)
    found = certainty_of(torch.tensor(scores, dtype=torch.float32))
    assert found.dtype == np.uint16 and found.tolist() == list(expected)
    assert certainty_of(torch.full((2, 1), 4.0)).tolist() == [[10000, 0, 10000]] * 2


@pytest.mark.parametrize("fast", [False, True])
def test_of_the_probabilities_of_tiles(fast):
    def graded(cloud):  # depends on the tile: points of margins have other numbers there
        return cloud.feat[:, :3] * 2 + (cloud.coord[:, :3] - cloud.coord.mean(0)) / 9

    rng = np.random.default_rng(0)
    scene = colored([0, 1, 2], count=900)
    scene = scene.with_fields(color=(rng.random((900, 3)) * 255).astype(np.float32))
    scene.coord[:, :2] *= 9
    scene.coord[5] = np.nan

    def made():
        return predictor(graded, single_pass=fast, max_points=300, margin_m=2.0)

    labels, probabilities = made().predict_probabilities(scene)
    again, found = made().predict_certainty(scene)
    np.testing.assert_array_equal(again, labels)
    held = labels >= 0
    assert held.sum() == 899 and found[5].tolist() == [0, 0, 0]
    np.testing.assert_array_equal(found[held], certainty_of(torch.from_numpy(probabilities[held])))
    of_class = np.take_along_axis(probabilities[held], labels[held, None], 1)[:, 0]
    np.testing.assert_allclose(found[held, 0] / 10000, of_class, atol=6e-5)
