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
    check_pooling,
    pool_images,
)
from pointseg.backbones.ptv3_block import Block, BlockSpec
from pointseg.backbones.ptv3_pooling import Pooling, Stem, Unpooling
from pointseg.backbones.ptv3_serialization import SerializedVoxels
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling
from pointseg.ops.pooling import Segments
from pointseg.ops.space_filling_curves import ORDERS


class PointTransformerV3(Backbone):
    """Point Transformer V3; its arguments have Pointcept's names and meaning, the defaults are its full size.

    Args:
        in_channels: channels of ``Cloud.feat``.
        order: the curves, of ``space_filling_curves.ORDERS``, that the blocks of a stage follow in turn.
        stride: voxels per cell along each axis, a power of two, between each stage and the next.
        enc_depths: blocks of each encoder stage; all lists begin with the finest stage.
        enc_channels: channels of each encoder stage.
        enc_num_head: attention heads of each encoder stage.
        enc_patch_size: points per window of each encoder stage.
        dec_depths: blocks of each decoder stage; one stage fewer than the encoder.
        dec_channels: channels of each decoder stage.
        dec_num_head: attention heads of each decoder stage.
        dec_patch_size: points per window of each decoder stage.
        drop_path: probability with which the last block's branches are dropped per point; that of
            earlier blocks is lower, linearly.
        shuffle_orders: whether each stage follows the curves in a random sequence, drawn from
            torch's generator; in training only, so that predictions do not vary. (PTv3's
            released code shuffles at inference, too, and below the first stage even if it is False.)
        image_channels: channels of the image features given with each cloud; None: it takes none.
        image_drop: probability with which a point's image features are dropped in training.
        image_pooling: how image features are pooled to coarser levels, see ``ImagePooling``.
        mlp_ratio, qkv_bias, qk_scale, attn_drop, proj_drop, pre_norm, enable_rpe, enable_flash,
            upcast_attention, upcast_softmax: see ``BlockSpec``.

    Raises:
        ValueError: lists of other lengths, or values that do not fit.
    """

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
        self.enc, self.dec = nn.ModuleDict(), nn.ModuleDict()
        drops = _drop_paths(drop_path, enc_depths)
        for s, channels in enumerate(enc_channels):
            down = Pooling(enc_channels[s - 1], channels) if s > 0 else None
            self.enc[f"enc{s}"] = Stage(
                channels, enc_num_head[s], enc_patch_size[s], drops[s], spec, down=down
            )
        drops = _drop_paths(drop_path, dec_depths)
        for s, channels in reversed(list(enumerate(dec_channels))):
            below = self.level_channels[s + 1]
            up = Unpooling(below, enc_channels[s], channels, image_channels, image_drop)
            # the published networks reverse the sequence of probabilities within a stage
            self.dec[f"dec{s}"] = Stage(
                channels, dec_num_head[s], dec_patch_size[s], drops[s][::-1], spec, up=up
            )

    def forward(
        self, cloud: Cloud, image_feat: Tensor | None = None, image_seen: Tensor | None = None
    ) -> Features:
        """Features of the points and of all levels; see ``Backbone.forward``."""
        self.check_input(cloud, image_feat, image_seen)
        voxels, cells = self._resolutions(cloud)
        images: list[Tensor] = []
        if image_feat is not None:
            images = pool_images(image_feat, image_seen, cells[:-1], self.image_pooling)

        feat = self.embedding(cloud.feat, voxels[0])  # (N, C0)
        skips = []
        for s, here in enumerate(voxels):
            stage = cast(Stage, self.enc[f"enc{s}"])
            if stage.down is not None:
                feat = stage.down(feat, cells[s - 1])  # (M, C): maxima over cells
            feat = stage(feat, here)
            skips.append(feat)

        levels = [_level(voxels[-1], feat, None)]
        for s, segments in reversed(list(enumerate(cells))):
            stage = cast(Stage, self.dec[f"dec{s}"])
            nearby = None
            if stage.up is not None:
                image = images.pop() if images else None
                feat, nearby = stage.up(feat, skips[s], segments, image)  # (N, C) both
            feat = stage(feat, voxels[s], nearby)
            levels.insert(0, _level(voxels[s], feat, segments.index))
        return Features(feat, tuple(levels))

    def curve_sequences(self) -> list[list[int]]:
        """For each stage the numbers in ``order`` of the curves that its blocks follow, in turn."""
        stages, curves = len(self.stride) + 1, len(self.order)
        if self.training and self.shuffle_orders:
            return [torch.randperm(curves).tolist() for _ in range(stages)]
        return [list(range(curves)) for _ in range(stages)]

    def _resolutions(self, cloud: Cloud) -> tuple[list[SerializedVoxels], list[Segments]]:
        """SerializedVoxels of all stages, and the cells that lead from each to the next."""
        first, *others = self.curve_sequences()
        voxels, cells = [SerializedVoxels.of(cloud, self.order, first)], []
        for stride, sequence in zip(self.stride, others, strict=True):
            coarser, segments = voxels[-1].pooled(stride, sequence)
            voxels.append(coarser)
            cells.append(segments)
        return voxels, cells

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
    """One resolution: pooling or unpooling into it, then its blocks."""

    def __init__(
        self,
        channels: int,
        heads: int,
        window: int,
        drop_paths: Sequence[float],
        spec: BlockSpec,
        *,
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

    def forward(
        self, feat: Tensor, voxels: SerializedVoxels, nearby: Tensor | None = None
    ) -> Tensor:
        """(M, C) -> (M, C), through the blocks.

        In the decoder the first convolution reads ``nearby``: the projected skip connection without
        the unpooled features. The published networks were trained this way.
        """
        for number in range(self.depth):
            feat = self.get_submodule(f"block{number}")(feat, voxels, nearby)
            nearby = None
        return feat


def _drop_paths(last: float, depths: Sequence[int]) -> list[list[float]]:
    """From 0 at the first block to ``last``, by stage."""
    steps = max(1, sum(depths) - 1)
    every = iter([last * step / steps for step in range(sum(depths))])
    return [[next(every) for _ in range(depth)] for depth in depths]


def _level(voxels: SerializedVoxels, feat: Tensor, parent: Tensor | None) -> Level:
    return Level(voxels.coord, voxels.grid_coord, voxels.offset, feat, parent)
