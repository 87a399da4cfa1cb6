"""A linear probe: features that are there already, standardised, and nothing else below the linear classifier.

    image features of the points, (N, C) and seen --> standardised, 0 where unseen; seen
                                                                                       } concatenated
    frozen 3D encoder --> its features, (N, D) ------> standardised                   /

What a linear layer on it reaches is what the features know: the figure that papers report of foundation models.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pointseg.backbones.interface.features import Backbone, Features, Level
from pointseg.backbones.interface.image_injection import check_pooling
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling


class LinearProbe(Backbone):
    """Lifted image features, features of a frozen 3D encoder, or both side by side.

    Each is standardised channel by channel, by the statistics of the batch in training and by those of all batches
    seen then in prediction: layers of an encoder differ in scale, and a linear layer trained with one learning rate
    is fair to all of them only then. Points that no image shows have zeros there, and do not count in the
    statistics; a further channel says whether an image shows a point. Nothing here is learned.

    Source: batch normalisation without scale and shift before the classifier after He 2022, arXiv:2111.06377,
    appendix A.1. Differs: running statistics are the plain mean over all batches, since the features never change.

    Args:
        in_channels: channels of ``Cloud.feat``, which the encoder reads; without one they are not read.
        encoder: a pretrained 3D network; frozen. None: there is none.
        image_channels: channels of the image features given with each cloud; None: there are none.
        image_drop: probability with which a point counts as unseen in training.
        image_pooling: without effect, nothing is pooled.

    Raises:
        ValueError: neither an encoder nor image features; an encoder that takes these itself.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        encoder: Backbone | None = None,
        image_channels: int | None = None,
        image_drop: float = 0.0,
        image_pooling: ImagePooling = "max",
    ) -> None:
        super().__init__()
        if encoder is None and image_channels is None:
            raise ValueError(
                "LinearProbe: has no features to read; give image features (--images) or weights of a pretrained 3D "
                "encoder (--init)"
            )
        if encoder is not None and encoder.image_channels is not None:
            raise ValueError(
                "LinearProbe: 'encoder' must take no image features: they are read separately"
            )
        check_pooling("LinearProbe", image_pooling)
        self.in_channels, self.image_channels = in_channels, image_channels
        self.image_pooling, self.image_drop = image_pooling, image_drop
        self.encoder = None if encoder is None else encoder.requires_grad_(False)
        self.image_norm, self.encoder_norm = None, None
        self.out_channels = 0
        if image_channels is not None:
            self.image_norm = _Standardised(image_channels)
            self.out_channels += image_channels + 1
        if encoder is not None:
            self.encoder_norm = _Standardised(encoder.out_channels)
            self.out_channels += encoder.out_channels
        self.level_channels = (self.out_channels,)

    def train(self, mode: bool = True) -> LinearProbe:
        """As nn.Module.train; the encoder stays in evaluation mode."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def forward(
        self, cloud: Cloud, image_feat: Tensor | None = None, image_seen: Tensor | None = None
    ) -> Features:
        """The features of each point; see :meth:`Backbone.forward`. There is one level.

        Args:
            cloud: N points.
            image_feat: (N, image_channels).
            image_seen: (N,) bool, needed with ``image_feat``.

        Raises:
            ValueError: channels that do not fit; image features missing or not taken.
        """
        self.check_input(cloud, image_feat, image_seen)
        parts: list[Tensor] = []
        if self.image_norm is not None:
            assert image_feat is not None
            if image_seen is None:
                raise ValueError(
                    f"LinearProbe: 'image_seen' must be ({len(cloud)},) bool, got none"
                )
            parts += self._images(self.image_norm, image_feat, image_seen)
        if self.encoder is not None and self.encoder_norm is not None:
            with torch.no_grad():
                found = self.encoder(cloud).feat
            parts.append(self.encoder_norm(found))
        feat = torch.cat(parts, 1)
        level = Level(cloud.coord, cloud.grid_coord, cloud.offset, feat, None)
        return Features(feat, (level,))

    def _images(self, norm: _Standardised, feat: Tensor, seen: Tensor) -> list[Tensor]:
        """(N, C) standardised features of images, 0 where unseen; (N, 1) whether they are seen."""
        if self.training and self.image_drop > 0:
            seen = seen & (torch.rand(len(seen), device=seen.device) >= self.image_drop)
        rows = seen.nonzero()[:, 0]
        values = norm(feat.index_select(0, rows))
        return [torch.zeros_like(feat, dtype=values.dtype).index_copy(0, rows, values),
                seen[:, None].to(values.dtype)]  # fmt: skip


class _Standardised(nn.BatchNorm1d):
    """Channels of mean 0 and variance 1; rows too few to have statistics take those of the batches before."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False, momentum=None)

    def forward(self, feat: Tensor) -> Tensor:
        """(n, C) -> (n, C)."""
        if not self.training or len(feat) > 1:
            return super().forward(feat) if len(feat) else feat
        assert self.running_mean is not None and self.running_var is not None
        return (feat - self.running_mean) / torch.sqrt(self.running_var + self.eps)
