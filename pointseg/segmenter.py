"""A backbone with a linear layer that names the points."""

from __future__ import annotations

from torch import Tensor, nn

from pointseg.backbones.features import Backbone
from pointseg.cloud import Cloud


class Segmenter(nn.Module):
    """Per-point class scores: a 3D backbone, then one linear layer on its finest level.

    The names of the parameters are Pointcept's (``backbone.``, ``seg_head.``).
    """

    def __init__(self, backbone: Backbone, num_classes: int) -> None:
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"Segmenter: 'num_classes' must be >= 1, got {num_classes}")
        self.backbone = backbone
        self.seg_head = nn.Linear(backbone.out_channels, num_classes)

    def forward(self, cloud: Cloud) -> Tensor:
        """(N, K) logits of the N points of the batch."""
        logits: Tensor = self.seg_head(self.backbone(cloud).feat)
        return logits
