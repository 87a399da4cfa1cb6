"""PointNeXt: PointNet++ made deeper and wider, on points themselves instead of voxels.

    points -> stem ---------------------------------------- + -> features
                |  balls around every fourth point          |  three nearest
                +-> abstraction -> residuals -------- + -> propagation
                      |                               |
                      +-> ...  abstraction -> residuals

Source: Qian 2022, arXiv:2206.04670, section 3 and figure 2. Differs: levels are subsampled by a grid
unless ``subsampling`` says otherwise, of a full ball the nearest points are taken, and coordinates
enter only as steps between points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from types import MappingProxyType
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

from pointseg.backbones.interface.features import Backbone, Features, Level
from pointseg.backbones.interface.image_injection import (
    check_pooling,
    pool_images,
)
from pointseg.backbones.pointnext.layers import (
    Abstraction,
    InvertedResidual,
    Propagation,
)
from pointseg.backbones.pointnext.levels import Link, Points
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling
from pointseg.ops.grouping.cells import Clouds
from pointseg.ops.grouping.neighbours import knn_of
from pointseg.ops.grouping.segments import Segments
from pointseg.ops.grouping.subsampling import farthest_subsample, grid_subsample
from pointseg.ops.grouping.voxel_keys import voxel_extent, voxel_keys

Subsampling = Literal["grid", "farthest"]

VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "S": {"width": 32, "blocks": (0, 0, 0, 0), "abstraction_layers": 2},
        "B": {"width": 32, "blocks": (1, 2, 1, 1)},
        "L": {"width": 32, "blocks": (2, 4, 2, 2)},
        "XL": {"width": 64, "blocks": (3, 6, 3, 3)},
    }
)
"""Arguments of the sizes that the paper names."""


class PointNeXt(Backbone):
    """The network; the defaults are PointNeXt-XL with the paper's values for rooms.

    Args:
        in_channels: of ``Cloud.feat``.
        width: channels of the stem; each stage doubles them.
        blocks: inverted residuals of each stage, the finest first.
        strides: points per point that stays, of each stage. With a grid a square number, since
            its cells are sqrt(stride) times as wide and clouds are mostly surfaces.
        radius_m: of the first stage's balls, metres; each stage doubles it, and inverted
            residuals look twice as far as the abstraction before them. 0.1 suits voxels of 4 cm;
            in general take 2.5 voxels.
        neighbours: taken from a ball, at most.
        expansion: of the channels inside an inverted residual.
        abstraction_layers: 1; or 2 with a residual, as in PointNeXt-S.
        subsampling: grid (linear in points), or farthest (the paper's; quadratic, for small clouds).
        image_channels: channels of the image features given with each cloud; None: it takes none.
        image_drop: probability with which a point's image features are dropped in training.
        image_pooling: how image features are pooled to coarser levels, see ``ImagePooling``.

    Raises:
        ValueError: values that do not fit.
    """

    def __init__(
        self,
        *,
        in_channels: int = 6,
        width: int = 64,
        blocks: Sequence[int] = (3, 6, 3, 3),
        strides: Sequence[int] = (4, 4, 4, 4),
        radius_m: float = 0.1,
        neighbours: int = 32,
        expansion: int = 4,
        abstraction_layers: int = 1,
        subsampling: Subsampling = "grid",
        image_channels: int | None = None,
        image_drop: float = 0.0,
        image_pooling: ImagePooling = "max",
    ) -> None:
        super().__init__()
        blocks, strides = tuple(blocks), tuple(strides)
        self.blocks, self.strides = blocks, strides
        self.radius_m, self.neighbours = radius_m, neighbours
        self.subsampling = subsampling
        self.image_channels, self.image_pooling = image_channels, image_pooling
        self._check(in_channels, width, expansion, abstraction_layers)
        check_pooling("PointNeXt", image_pooling)
        widths = [width * 2**s for s in range(len(strides) + 1)]
        self.in_channels = in_channels
        self.out_channels = width
        self.level_channels = tuple(widths)

        self.stem = nn.Linear(in_channels, width)
        # no name has "block" in it: training recipes slow such parameters down, for PTv3
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for s, count in enumerate(blocks):
            self.encoder.append(
                Stage(widths[s], widths[s + 1], count, expansion, abstraction_layers)
            )
            self.decoder.append(
                Propagation(widths[s + 1], widths[s], widths[s], image_channels, image_drop)
            )

    def forward(
        self, cloud: Cloud, image_feat: Tensor | None = None, image_seen: Tensor | None = None
    ) -> Features:
        """Features of the points and of all levels; see ``Backbone.forward``.

        A coarser level holds some of the points of the finer one; the ``parent`` of a point is the
        coarse point nearest to it, and ``grid_coord`` counts cells of the level.
        """
        self.check_input(cloud, image_feat, image_seen)
        # Sorted by voxel, points near each other are near in memory, and nothing depends on their order.
        batch = cloud.batch
        extent = voxel_extent(cloud.grid_coord, batch)
        order = torch.argsort(voxel_keys(cloud.grid_coord, batch, extent=extent), stable=True)
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        clouds = Clouds(cloud.coord[order].float(), batch, tuple(cloud.offset.tolist()))
        links = self._links(Points(clouds, cloud.grid_coord[order], cloud.offset, 1), extent)
        images: list[Tensor] = []
        if image_feat is not None:
            cells = [Segments.known(k.parent, len(k.coarse.coord)) for k in links[1:-1]]
            if len(links) > 1:  # the wide features of the points themselves are never sorted
                parent, count = links[0].parent[back], len(links[0].coarse.coord)
                cells.insert(0, Segments.known(parent, count))
            images = pool_images(image_feat, image_seen, cells, self.image_pooling)

        feat = self.stem(cloud.feat.index_select(0, order))  # (N, width)
        skips = []
        for stage, link in zip(self.encoder, links, strict=True):
            skips.append(feat)
            feat = stage(feat, link)  # (N / stride, 2 width)
        levels = [links[-1].coarse.level(feat, None)]
        for s in reversed(range(len(links))):
            up, link = cast(Propagation, self.decoder[s]), links[s]
            shown = None
            if up.proj_image_feat is not None:
                shown = up.proj_image_feat(images.pop())  # (N, width)
                shown = shown if s else shown.index_select(0, order)
            feat = up(feat, skips[s], link.indices, link.distances, shown)  # (N, width)
            if s > 0:
                levels.insert(0, link.fine.level(feat, link.parent))
        feat = feat.index_select(0, back)
        finest = Level(cloud.coord, cloud.grid_coord, cloud.offset, feat, links[0].parent[back])
        return Features(feat, (finest, *levels))

    def _links(self, points: Points, extent: Sequence[int]) -> list[Link]:
        """Between each level and the next coarser one; neighbours are found once for all layers."""
        links, radius_m, k = [], self.radius_m, self.neighbours
        for count, stride in zip(self.blocks, self.strides, strict=True):
            side = points.side * isqrt(stride)
            if self.subsampling == "grid":
                rows, offset, ends = grid_subsample(
                    points.voxels, points.offset, side, extent=extent
                )
            else:
                rows, offset, ends = farthest_subsample(points.coord, points.offset, stride)
            clouds = Clouds(points.coord[rows], points.clouds.batch[rows], ends)
            coarse = Points(clouds, points.voxels[rows], offset, side)
            indices, distances = knn_of(points.clouds, coarse.clouds, 3)
            around = coarse.grouped(coarse, 2 * radius_m, k) if count else None
            down = coarse.grouped(points, radius_m, k)
            links.append(Link(points, coarse, rows, down, around, indices, distances))
            points, radius_m = coarse, 2 * radius_m
        return links

    def _check(self, in_channels: int, width: int, expansion: int, layers: int) -> None:
        counts = {
            "in_channels": in_channels,
            "width": width,
            "neighbours": self.neighbours,
            "expansion": expansion,
        }
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"PointNeXt: '{name}' must be >= 1, got {count}")
        if len(self.blocks) != len(self.strides) or not self.blocks or min(self.blocks) < 0:
            raise ValueError(
                "PointNeXt: 'blocks' must be a number >= 0 for each of 'strides', at least one, got "
                f"{list(self.blocks)} and {list(self.strides)}"
            )
        if not self.radius_m > 0:
            raise ValueError(f"PointNeXt: 'radius_m' must be > 0 metres, got {self.radius_m}")
        if layers not in (1, 2):
            raise ValueError(f"PointNeXt: 'abstraction_layers' must be 1 or 2, got {layers}")
        if self.subsampling not in get_args(Subsampling):
            raise ValueError(
                f"PointNeXt: 'subsampling' must be grid or farthest, got {self.subsampling!r}"
            )
        square = self.subsampling == "grid"
        if any(n < 1 or (square and isqrt(n) ** 2 != n) for n in self.strides):
            kind = "square numbers (1, 4, 9, ...), for a grid," if square else ">= 1"
            raise ValueError(f"PointNeXt: 'strides' must be {kind}, got {list(self.strides)}")


class Stage(nn.Module):
    """One stage of the encoder: set abstraction, then inverted residuals."""

    def __init__(
        self, in_channels: int, channels: int, residuals: int, expansion: int, layers: int
    ) -> None:
        super().__init__()
        self.abstraction = Abstraction(in_channels, channels, layers)
        self.residuals = nn.ModuleList(
            InvertedResidual(channels, expansion) for _ in range(residuals)
        )

    def forward(self, feat: Tensor, link: Link) -> Tensor:
        """(N, in_channels) -> (M, channels)."""
        feat = self.abstraction(feat, link.down, link.rows)
        for residual in self.residuals:
            feat = residual(feat, link.around)
        return feat
