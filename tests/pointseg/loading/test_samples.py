"""What is drawn at random in scenes for training and validation."""

from __future__ import annotations

import torch

from pointseg.loading.samples import Samples
from tests.pointseg.tiny import RECIPE, Boxes


def test_training_draws_anew_for_each_number_and_validation_never() -> None:
    for training in (True, False):
        samples = Samples(Boxes(), RECIPE, training=training, seed=0)
        one, again, other = (samples[number, 0].coord for number in (0, 0, 1))  # type: ignore[union-attr]
        assert torch.equal(one, again)
        assert (one.shape == other.shape and torch.equal(one, other)) != training
