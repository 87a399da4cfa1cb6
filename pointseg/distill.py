"""D-DITR: a 3D network learns to say what a frozen 2D encoder sees at each point; then images can go.

    points -> backbone -> (N, C) features -> linear -> what images would show there
    images -> encoder  -> lift -> (N, C') what they show                    (cosine)

Source: Abou Zeid 2025, arXiv:2503.18944, section 3; section 2.12 of the method's description.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinomed3d.runtime.errors import UserError
from pointseg.backbones.features import Backbone, Features
from pointseg.cloud import Cloud
from pointseg.ditr import PointImages


class DistillationOutput(NamedTuple):
    """What the student says and what the teacher sees."""

    said: Tensor
    """(N, C) of each point."""
    shown: Tensor
    """(N, C) what the images show there."""
    seen: Tensor
    """(N,) whether they do."""
    said_of_images: Tensor | None = None
    """(M, C) of each view that shows something of its cloud."""
    shown_of_images: Tensor | None = None
    """(M, C) the encoder's summary of that view."""


class Distiller(nn.Module):
    """A student backbone that reads no images, and the teacher that does.

    The names of the student's parameters (``backbone.``) are those of a segmenter, which starts from them.
    """

    def __init__(
        self,
        backbone: Backbone,
        images: PointImages,
        *,
        datasets: int = 1,
        summaries: bool = False,
    ) -> None:
        """Put them together.

        Args:
            backbone: the student.
            images: the teacher.
            datasets: each has a linear layer of its own from student to teacher.
            summaries: whether the student also learns what the encoder says of each image as a whole, from
                the mean of its coarsest features.

        Raises:
            UserError: a student that is given images itself.
            ValueError: no dataset.
        """
        super().__init__()
        if backbone.image_channels is not None:
            raise UserError("Distiller: the student must not read images; build it without")
        if datasets < 1:
            raise ValueError(f"Distiller: 'datasets' must be >= 1, got {datasets}")
        self.backbone, self.images = backbone, images
        self.heads = nn.ModuleList(
            nn.Linear(backbone.out_channels, images.channels) for _ in range(datasets)
        )
        self.summary_head = None
        if summaries:
            self.summary_head = nn.Linear(backbone.level_channels[-1], images.channels)

    def forward(self, cloud: Cloud) -> DistillationOutput:
        """What both make of a batch.

        Args:
            cloud: N points with their images; with ``source`` where there are several datasets.

        Raises:
            UserError: no images, or, for summaries, features of them instead.
        """
        summaries = None
        if self.summary_head is not None:
            if cloud.images is None:
                raise UserError(
                    "the loss on whole images needs the images; a cache holds features of their patches "
                    "only: leave out --image-cache, or the loss"
                )
            maps, flat = self.images.encode_with_cls(cloud.images.flatten(0, 1))
            shape = cloud.images.shape[:2]
            summaries = flat.unflatten(0, shape)
            cloud = replace(cloud, images=None, image_maps=maps.unflatten(0, shape))
        with torch.no_grad():
            shown, seen = self.images(cloud)
        found = self.backbone(cloud)
        said = self._said(found.feat, cloud)
        if summaries is None:
            return DistillationOutput(said, shown, seen)
        of_images, targets = self._of_images(found, cloud, summaries)
        return DistillationOutput(said, shown, seen, of_images, targets)

    def _said(self, feat: Tensor, cloud: Cloud) -> Tensor:
        """(N, C') by the head of each sample's dataset."""
        if len(self.heads) == 1:
            said: Tensor = self.heads[0](feat)
            return said
        if cloud.source is None:
            raise UserError(
                f"Distiller: clouds must say which of {len(self.heads)} datasets they are of"
            )
        parts = feat.split(_counts(_sample_ends(cloud)).tolist())
        said = torch.cat(
            [
                self.heads[source](part)
                for source, part in zip(cloud.source.tolist(), parts, strict=True)
            ]
        )
        # Heads of datasets that are not in the batch take part with nothing: gradients are summed over
        # devices, which wait for all of them.
        idle = torch.stack([p.sum() for p in self.heads.parameters()]).sum()
        return said + 0 * idle.to(said.dtype)

    def _of_images(self, found: Features, cloud: Cloud, summaries: Tensor) -> tuple[Tensor, Tensor]:
        """What is said of each view that shows something, and its summary."""
        assert self.summary_head is not None and cloud.image_mask is not None
        coarse = found.levels[-1]
        means = torch.stack(
            [part.float().mean(0) for part in coarse.feat.split(_counts(coarse.offset).tolist())]
        )  # (B, C)
        said = self.summary_head(means.to(coarse.feat.dtype))  # (B, C')
        ends = _sample_ends(cloud)
        cloud_of = torch.searchsorted(cloud.offset, ends)  # (S,) which merged cloud a sample is in
        masks = cloud.image_mask.split(_counts(ends).tolist())
        shows = torch.stack([mask.any(0) for mask in masks])  # (S, V)
        sample, _ = torch.nonzero(shows, as_tuple=True)
        return said[cloud_of[sample]], summaries[shows]


def cosine_distance(said: Tensor, shown: Tensor, seen: Tensor | None = None) -> Tensor:
    """Mean of 1 - cos over rows; 0, still with gradients, where there are none.

    Args:
        said: (N, C).
        shown: (N, C), not all 0 in a row.
        seen: (N,) bool, the rows that count; None: all.
    """
    if seen is not None:
        said, shown = said[seen], shown[seen]
    if not len(said):
        return said.sum()
    return (1 - F.cosine_similarity(said.float(), shown.float(), dim=1)).mean()


def _sample_ends(cloud: Cloud) -> Tensor:
    return cloud.offset if cloud.image_offset is None else cloud.image_offset


def _counts(ends: Tensor) -> Tensor:
    return torch.diff(ends, prepend=ends.new_zeros(1))
