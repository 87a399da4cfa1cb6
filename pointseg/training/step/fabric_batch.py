"""Wrappers that keep Lightning Fabric from recursing into the frozen Cloud dataclass."""

from __future__ import annotations

from typing import Any

from torch import nn

from pointseg.cloud import Cloud


class OpaqueBatch:
    """Hides a batch from Fabric, which would try to rebuild it field by field."""

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud


class UnwrapBatch(nn.Module):
    """Calls a network with the batch inside an ``OpaqueBatch``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: OpaqueBatch) -> Any:
        """Return the output of the network for the batch."""
        return self.network(batch.cloud)
