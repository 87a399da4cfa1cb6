"""How a network is run in validation."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from pointseg.loading.samples import Samples
from pointseg.training.validate import validate
from tests.pointseg.tiny import RECIPE, Boxes


class Noting(nn.Module):
    """Notes how it is run."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bool, bool]] = []

    def forward(self, cloud: Any) -> Any:
        self.seen.append((self.training, torch.is_grad_enabled()))
        return cloud


class Points:
    """Counts points."""

    def empty_metrics(self) -> Tensor:
        return torch.zeros(())

    def update_metrics(self, output: Any, cloud: Any) -> Tensor:
        return torch.tensor(float(len(output)))


def test_scenes_are_summed_in_eval_mode_and_without_gradients() -> None:
    samples = Samples(Boxes(), RECIPE, training=False, seed=0)
    clouds = [samples[0, number] for number in range(2)]
    network = Noting().train()
    loader: Any = DataLoader(clouds, batch_size=None)  # type: ignore[arg-type]
    total = validate(Fabric(accelerator="cpu", devices=1), network, Points(), loader)  # type: ignore[arg-type]
    assert network.seen == [(False, False)] * 2
    assert int(total) == sum(map(len, clouds))  # type: ignore[arg-type]
