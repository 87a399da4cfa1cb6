"""D-DITR: distils 2D features into a 3D backbone, which then needs no images.

    points -> backbone -> (N, C) -> linear -> (N, C') prediction
    images -> encoder  -> lift             -> (N, C') target       cosine distance where visible

Source: D-DITR (Knaebel et al. 2025, "DINO in the Room", arXiv:2503.18944), section 3.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from pointseg.backbones.interface.features import Backbone, Features
from pointseg.backbones.interface.plugin import run_backbone
from pointseg.cloud import Cloud
from pointseg.ditr import PointImages


class DistillationOutput(NamedTuple):
    """Student prediction and teacher target."""

    prediction: Tensor
    """(N, C') the student's prediction for each point."""
    target: Tensor
    """(N, C') the image feature of each point; zeros where it is visible in no view."""
    visible: Tensor
    """(N,) bool, whether the point is visible in some view."""
    image_prediction: Tensor | None = None
    """(M, C') the student's prediction for each view that shows some of its cloud; None without that loss."""
    image_target: Tensor | None = None
    """(M, C') the encoder's class token of these views."""


class Distiller(nn.Module):
    """Student backbone (points only) and teacher (frozen image encoder).

    The student's parameters are named ``backbone.``, as in a segmenter, which can be initialised from them.
    """

    def __init__(
        self,
        backbone: Backbone,
        images: PointImages,
        *,
        datasets: int = 1,
        summaries: bool = False,
    ) -> None:
        """Combine student and teacher.

        Args:
            backbone: the student.
            images: the teacher.
            datasets: number of datasets; each has its own linear head.
            summaries: whether the student also predicts each image's class token, from the mean of its
                coarsest features.

        Raises:
            UserError: the student reads images itself.
            ValueError: ``datasets`` is below 1.
        """
        super().__init__()
        if backbone.image_channels is not None:
            raise UserError(
                "Distiller: the student 'backbone' must not read images; build it without"
            )
        if datasets < 1:
            raise ValueError(f"Distiller: 'datasets' must be >= 1, got {datasets}")
        self.backbone, self.images = backbone, images
        self.heads = nn.ModuleList(
            nn.Linear(backbone.out_channels, images.channels) for _ in range(datasets)
        )
        self.summary_head = None
        if summaries:
            self.summary_head = nn.Linear(backbone.level_channels[-1], images.token_channels)

    def forward(self, cloud: Cloud) -> DistillationOutput:
        """Student prediction and teacher target of a batch.

        Args:
            cloud: N points with their images or feature maps; with ``source`` if there are several datasets.

        Raises:
            UserError: there are no images, or only feature maps where class tokens are needed.
        """
        summaries = None
        if self.summary_head is not None:
            if cloud.images is None:
                raise UserError(
                    "the loss on class tokens needs the images, a cache holds patch features only; leave out "
                    "--image-cache or the loss"
                )
            maps, flat = self.images.encode_with_cls(cloud.images.flatten(0, 1))
            shape = cloud.images.shape[:2]
            summaries = flat.unflatten(0, shape)
            cloud = replace(cloud, images=None, image_maps=maps.unflatten(0, shape))
        with torch.no_grad():
            target, visible = self.images(cloud)
        found = run_backbone(self.backbone, cloud)
        prediction = self._predict_points(found.feat, cloud)
        if summaries is None:
            return DistillationOutput(prediction, target, visible)
        return DistillationOutput(
            prediction, target, visible, *self._predict_images(found, cloud, summaries)
        )

    def _predict_points(self, feat: Tensor, cloud: Cloud) -> Tensor:
        """(N, C') from the head of each sample's dataset."""
        if len(self.heads) == 1:
            prediction: Tensor = self.heads[0](feat)
            return prediction
        if cloud.source is None:
            raise UserError(
                f"Distiller: 'cloud.source' must name one of {len(self.heads)} datasets per sample, is None"
            )
        samples = feat.split(_counts(cloud.sample_ends).tolist())
        prediction = torch.cat(
            [
                self.heads[k](sample)
                for k, sample in zip(cloud.source.tolist(), samples, strict=True)
            ]
        )
        # Heads of datasets that are not in the batch contribute zero, so that all have gradients: DDP
        # waits for every parameter.
        idle = torch.stack([p.sum() for p in self.heads.parameters()]).sum()
        return prediction + 0 * idle.to(prediction.dtype)

    def _predict_images(
        self, found: Features, cloud: Cloud, summaries: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(M, C') predicted and true class tokens of the views that show some point."""
        assert self.summary_head is not None
        coarse = found.levels[-1]
        rows = coarse.feat.float().split(_counts(coarse.offset).tolist())
        # the mean of no rows, of a cloud without points, would make all gradients NaN
        means = torch.stack([cell.sum(0) / max(len(cell), 1) for cell in rows])  # (B, C)
        prediction = self.summary_head(means.to(coarse.feat.dtype))  # (B, C')
        ends = cloud.sample_ends
        cloud_of = torch.searchsorted(cloud.offset, ends)  # (S,) the Mix3D cloud of each sample
        shows = _shown(cloud, ends)  # (S, V)
        sample, _ = torch.nonzero(shows, as_tuple=True)
        return prediction[cloud_of[sample]], summaries[shows]


def cosine_distance(prediction: Tensor, target: Tensor, visible: Tensor | None = None) -> Tensor:
    """Mean over rows of 1 - cos(prediction, target); 0, still with gradients, without rows.

    Args:
        prediction: (N, C).
        target: (N, C), no row all zeros.
        visible: (N,) bool, the rows that count; None: all.
    """
    if visible is not None:
        prediction, target = prediction[visible], target[visible]
    if not len(prediction):
        return prediction.sum()
    return (1 - F.cosine_similarity(prediction.float(), target.float(), dim=1)).mean()


def _shown(cloud: Cloud, ends: Tensor) -> Tensor:
    """(S, V) whether a view shows some point of its sample."""
    if cloud.image_shown is not None:
        return cloud.image_shown
    if cloud.image_mask is None or cloud.image_view is not None:
        raise UserError(
            "Distiller: the loss on class tokens needs 'image_shown' of the cloud, or 'image_mask' of all views"
        )
    return torch.stack([mask.any(0) for mask in cloud.image_mask.split(_counts(ends).tolist())])


def _counts(ends: Tensor) -> Tensor:
    return torch.diff(ends, prepend=ends.new_zeros(1))
