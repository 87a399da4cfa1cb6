"""Batches that one step accumulates: together they give the gradient of their mean."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pointseg.training.step.learner import Learner


class Batch:
    """Three points, on whichever device."""

    def to(self, device: torch.device) -> Batch:
        """The same."""
        return self

    def __len__(self) -> int:
        return 3


@pytest.mark.parametrize("factors", [(6.0,), (2.0, 8.0), (1.0, 2.0, 6.0)])
def test_gradients_are_those_of_the_mean_loss(factors: tuple[float, ...]) -> None:
    weight = torch.tensor(1.0, requires_grad=True)
    synchronised = []

    def no_backward_sync(model: Any, *, enabled: bool) -> Any:
        synchronised.append(not enabled)
        return nullcontext()

    fabric = SimpleNamespace(
        no_backward_sync=no_backward_sync,
        device=torch.device("cpu"),
        backward=lambda loss: loss.backward(),
    )
    learner: Any = SimpleNamespace(fabric=fabric, model=lambda batch: weight, largest=0)
    batches = len(factors)
    for number, factor in enumerate(factors):
        found = Learner.accumulate(
            learner,
            Batch(),  # type: ignore[arg-type]
            lambda output, cloud, factor=factor: {"loss": factor * output},
            batches=batches,
            is_last=number == batches - 1,
        )
        assert found["loss"].item() == factor  # what is logged is not divided
    assert weight.grad is not None and weight.grad.item() == pytest.approx(sum(factors) / batches)
    assert synchronised == [False] * (batches - 1) + [True]  # devices exchange gradients once
    assert learner.largest == 3
