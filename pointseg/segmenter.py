"""Backbone plus per-point linear classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from pointseg.backbones.interface.features import Backbone
from pointseg.backbones.interface.plugin import run_backbone
from pointseg.cloud import Cloud

if TYPE_CHECKING:
    from pointseg.ditr import PointImages


class Segmenter(nn.Module):
    """Per-point class scores: a 3D backbone, then one linear layer on its finest level.

    The names of the parameters are Pointcept's (``backbone.``, ``seg_head.``).
    """

    def __init__(
        self, backbone: Backbone, num_classes: int, images: PointImages | None = None
    ) -> None:
        """Build it.

        Args:
            backbone: computes the features of points.
            num_classes: K.
            images: computes the image features of points, for a backbone that takes them.

        Raises:
            ValueError: no classes.
            UserError: the image features do not fit the backbone, or are missing or not taken.
        """
        super().__init__()
        if num_classes < 1:
            raise ValueError(f"Segmenter: 'num_classes' must be >= 1, got {num_classes}")
        taken, given = backbone.image_channels, None if images is None else images.channels
        if taken != given:
            raise UserError(
                f"Segmenter: the backbone takes {_features(taken)}, 'images' gives {_features(given)}; build "
                "the one with 'image_channels' of the other's 'channels'"
            )
        self.backbone = backbone
        self.seg_head = nn.Linear(backbone.out_channels, num_classes)
        self.images = images
        self._frozen: tuple[nn.Module, ...] = ()

    def freeze(self, *parts: nn.Module) -> None:
        """Let parts of the network be as they are: they take no gradients and stay in evaluation mode.

        So their features in training are those of prediction: no drop path, no shuffled curves, and the running
        statistics of normalisation do not move. Pointcept's recipes leave drop path on in frozen encoders.

        Args:
            parts: modules inside this one.
        """
        self._frozen = parts
        for part in parts:
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Segmenter:
        """Switch to training or evaluation, frozen parts excepted."""
        super().train(mode)
        for part in self._frozen:
            part.eval()
        return self

    def forward(self, cloud: Cloud) -> Tensor:
        """(N, K) logits of the N points of the batch.

        Raises:
            UserError: a model that reads images got a cloud without images.
        """
        shown = () if self.images is None else self.images(cloud)
        logits: Tensor = self.seg_head(run_backbone(self.backbone, cloud, *shown).feat)
        return logits


def _features(channels: int | None) -> str:
    return "no features of images" if channels is None else f"{channels} features of images"
