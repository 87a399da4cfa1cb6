"""Clouds on their way through Fabric, which would take them apart."""

from __future__ import annotations

from typing import Any

from torch import nn

from pointseg.cloud import Cloud


class Held:
    """A cloud that Fabric does not look into: it would rebuild it field by field, which is frozen."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud


class Reader(nn.Module):
    """A network that reads held clouds."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, held: Held) -> Any:
        """What the network makes of the cloud."""
        return self.network(held.cloud)
