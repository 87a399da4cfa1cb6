"""Point Transformer V3: a U-Net of attention in windows along space-filling curves.

    points -> stem -> blocks ----------------------------- + -> blocks -> features
                        | max over 2 x 2 x 2 cells         |
                        +-> blocks --------------- + -> blocks
                              |                    |
                              +-> ...  blocks -----+

Source: Wu 2024, arXiv:2312.10035, from its text and published configurations. Parameters have
Pointcept's names and shapes, so that its checkpoints load. Features of images are added on the way
up, as DITR does (Knaebel 2025, arXiv:2503.18944, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pointseg.backbones.features import Backbone, Features, Level
from pointseg.backbones.image_injection import (
    ImagePooling,
    check_pooling,
    pool_images,
)
from pointseg.backbones.ptv3_block import Block, BlockSpec
from pointseg.backbones.ptv3_pooling import Pooling, Stem, Unpooling
from pointseg.backbones.ptv3_serialization import Sites
from pointseg.cloud import Cloud
from pointseg.ops.pooling import Segments
from pointseg.ops.space_filling_curves import ORDERS


class PointTransformerV3(Backbone):
    """The network; names and meaning of its arguments are Pointcept's, the defaults its full size."""

    def __init__(
        self,
        *,
        in_channels: int = 6,
        order: Sequence[str] = ORDERS,
        stride: Sequence[int] = (2, 2, 2, 2),
        enc_depths: Sequence[int] = (2, 2, 2, 6, 2),
        enc_channels: Sequence[int] = (32, 64, 128, 256, 512),
        enc_num_head: Sequence[int] = (2, 4, 8, 16, 32),
        enc_patch_size: Sequence[int] = (1024, 1024, 1024, 1024, 1024),
        dec_depths: Sequence[int] = (2, 2, 2, 2),
        dec_channels: Sequence[int] = (64, 64, 128, 256),
        dec_num_head: Sequence[int] = (4, 4, 8, 16),
        dec_patch_size: Sequence[int] = (1024, 1024, 1024, 1024),
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.3,
        pre_norm: bool = True,
        shuffle_orders: bool = True,
        enable_rpe: bool = False,
        enable_flash: bool = True,
        upcast_attention: bool = False,
        upcast_softmax: bool = False,
        image_channels: int | None = None,
        image_drop: float = 0.0,
        image_pooling: ImagePooling = "max",
    ) -> None:
        """Build it with random weights.

        Args:
            in_channels: of ``Cloud.feat``.
            order: curves, of ``space_filling_curves.ORDERS``, which the blocks of a stage go along in turn.
            stride: voxels per cell along each axis, a power of two, between each stage and the next.
            enc_depths: blocks of each encoder stage, the finest first. So are all lists.
            enc_channels: of each encoder stage.
            enc_num_head: heads of attention of each encoder stage.
            enc_patch_size: points per window of each encoder stage.
            dec_depths: blocks of each decoder stage; one stage fewer than the encoder.
            dec_channels: of each decoder stage.
            dec_num_head: heads of attention of each decoder stage.
            dec_patch_size: points per window of each decoder stage.
            mlp_ratio: see ``BlockSpec``, as of all up to ``upcast_softmax`` but the next two.
            qkv_bias: see there.
            qk_scale: see there.
            attn_drop: see there.
            proj_drop: see there.
            drop_path: probability with which the last block's branches are dropped per point; earlier
                ones less, linearly.
            pre_norm: see ``BlockSpec``.
            shuffle_orders: whether each stage goes along the curves in a random sequence, drawn from
                torch's generator; in training only, so that predictions do not vary. (The reference
                shuffles there, too, and below the first stage even if told not to.)
            enable_rpe: see ``BlockSpec``.
            enable_flash: see there.
            upcast_attention: see there.
            upcast_softmax: see there.
            image_channels: of image features given with each cloud; None: it takes none.
            image_drop: probability with which a point's image features are dropped in training.
            image_pooling: how they are pooled to coarser levels, see ``ImagePooling``.

        Raises:
            ValueError: lists of other lengths, or values that do not fit.
        """
        super().__init__()
        self.order = (order,) if isinstance(order, str) else tuple(order)
        self.stride = tuple(stride)
        self.shuffle_orders = shuffle_orders
        self.image_channels, self.image_pooling = image_channels, image_pooling
        check_pooling("PointTransformerV3", image_pooling)
        self._check(enc_depths, enc_channels, enc_num_head, enc_patch_size, "enc")
        self._check(dec_depths, dec_channels, dec_num_head, dec_patch_size, "dec")
        spec = BlockSpec(
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            pre_norm=pre_norm,
            enable_rpe=enable_rpe,
            enable_flash=enable_flash,
            upcast_attention=upcast_attention,
            upcast_softmax=upcast_softmax,
        )
        self.in_channels = in_channels
        self.out_channels = dec_channels[0]
        self.level_channels = (*dec_channels, enc_channels[-1])

        self.embedding = Stem(in_channels, enc_channels[0])
        self.enc = nn.ModuleDict()
        drops = _drop_paths(drop_path, enc_depths)
        for s, channels in enumerate(enc_channels):
            self.enc[f"enc{s}"] = Stage(
                channels,
                heads=enc_num_head[s],
                window=enc_patch_size[s],
                drop_paths=drops[s],
                spec=spec,
                down=Pooling(enc_channels[s - 1], channels) if s > 0 else None,
            )
        self.dec = nn.ModuleDict()
        drops = _drop_paths(drop_path, dec_depths)
        for s, channels in reversed(list(enumerate(dec_channels))):
            below = self.level_channels[s + 1]
            self.dec[f"dec{s}"] = Stage(
                channels,
                heads=dec_num_head[s],
                window=dec_patch_size[s],
                drop_paths=drops[s][::-1],  # so do the published networks, stage by stage
                spec=spec,
                up=Unpooling(below, enc_channels[s], channels, image_channels, image_drop),
            )

    def forward(
        self, cloud: Cloud, image_feat: Tensor | None = None, image_seen: Tensor | None = None
    ) -> Features:
        """Features of the points and of all levels; see ``Backbone.forward``."""
        self.check_input(cloud, image_feat, image_seen)
        sites, cells = self._resolutions(cloud)
        images: list[Tensor] = []
        if image_feat is not None:
            images = pool_images(image_feat, image_seen, cells[:-1], self.image_pooling)

        feat = self.embedding(cloud.feat, sites[0])  # (N, C0)
        skips = []
        for s, here in enumerate(sites):
            stage = cast(Stage, self.enc[f"enc{s}"])
            if stage.down is not None:
                feat = stage.down(feat, cells[s - 1])  # (M, C): maxima over cells
            feat = stage(feat, here)
            skips.append(feat)

        levels = [_level(sites[-1], feat, None)]
        for s, segments in reversed(list(enumerate(cells))):
            stage = cast(Stage, self.dec[f"dec{s}"])
            nearby = None
            if stage.up is not None:
                image = images.pop() if images else None
                feat, nearby = stage.up(feat, skips[s], segments, image)  # (N, C) both
            feat = stage(feat, sites[s], nearby)
            levels.insert(0, _level(sites[s], feat, segments.index))
        return Features(feat, tuple(levels))

    def curve_sequences(self) -> list[list[int]]:
        """For each stage the numbers in ``order`` of the curves that its blocks go along, in turn."""
        stages, curves = len(self.stride) + 1, len(self.order)
        if self.training and self.shuffle_orders:
            return [torch.randperm(curves).tolist() for _ in range(stages)]
        return [list(range(curves)) for _ in range(stages)]

    def _resolutions(self, cloud: Cloud) -> tuple[list[Sites], list[Segments]]:
        """Sites of all stages, and the cells that lead from each to the next."""
        first, *others = self.curve_sequences()
        sites, cells = [Sites.of(cloud, self.order, first)], []
        for stride, sequence in zip(self.stride, others, strict=True):
            coarser, segments = sites[-1].pooled(stride, sequence)
            sites.append(coarser)
            cells.append(segments)
        return sites, cells

    def _check(
        self,
        depths: Sequence[int],
        channels: Sequence[int],
        heads: Sequence[int],
        windows: Sequence[int],
        part: str,
    ) -> None:
        wanted = len(self.stride) + (part == "enc")
        lists = {"depths": depths, "channels": channels, "num_head": heads, "patch_size": windows}
        for name, values in lists.items():
            if len(values) != wanted:
                raise ValueError(
                    f"PointTransformerV3: '{part}_{name}' must have {wanted} entries, since 'stride' has "
                    f"{len(self.stride)}, got {list(values)}"
                )
        wrong = [name for name in self.order if name not in ORDERS]
        if wrong or not self.order:
            raise ValueError(
                f"PointTransformerV3: 'order' must be of {', '.join(ORDERS)}, got {list(self.order)}"
            )
        if any(stride < 1 or stride & (stride - 1) for stride in self.stride):
            raise ValueError(
                f"PointTransformerV3: 'stride' must be powers of two, got {list(self.stride)}"
            )


class Stage(nn.Module):
    """The way into a resolution, and the blocks at it."""

    def __init__(
        self,
        channels: int,
        *,
        heads: int,
        window: int,
        drop_paths: Sequence[float],
        spec: BlockSpec,
        down: Pooling | None = None,
        up: Unpooling | None = None,
    ) -> None:
        super().__init__()
        self.down = down
        self.up = up
        self.depth = len(drop_paths)
        for number, drop in enumerate(drop_paths):
            block = Block(
                channels, heads=heads, window=window, number=number, drop_path=drop, spec=spec
            )
            self.add_module(f"block{number}", block)

    def forward(self, feat: Tensor, sites: Sites, nearby: Tensor | None = None) -> Tensor:
        """(M, C) -> (M, C), through the blocks.

        In the decoder the first convolution reads ``nearby``: what came from the encoder, before
        what came from below was added. So the published networks were trained.
        """
        for number in range(self.depth):
            feat = self.get_submodule(f"block{number}")(feat, sites, nearby)
            nearby = None
        return feat


def _drop_paths(last: float, depths: Sequence[int]) -> list[list[float]]:
    """From 0 at the first block to ``last``, by stage."""
    steps = max(1, sum(depths) - 1)
    every = iter([last * step / steps for step in range(sum(depths))])
    return [[next(every) for _ in range(depth)] for depth in depths]


def _level(sites: Sites, feat: Tensor, parent: Tensor | None) -> Level:
    return Level(sites.coord, sites.grid_coord, sites.offset, feat, parent)
