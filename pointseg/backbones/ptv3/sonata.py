"""Sonata and Concerto: encoders along space-filling curves, pretrained without labels; Pointcept's PT-v3m2.

Both are one network, with the same names of parameters. It differs from Point Transformer V3 in its embedding, which
is pointwise, in layer normalisation throughout, in pooling on voxel coordinates, so that each stage has curves of
its own, and in a decoder whose convolutions read the sum of skip and unpooled features.

Source: Wu 2025, arXiv:2503.16429 (Sonata), and Zhang 2025, arXiv:2510.23607 (Concerto), from their released code.
Unlike there, evaluation follows the curves in their given order: the released models shuffle them then, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from pointseg.backbones.ptv3.attention import Attention
from pointseg.backbones.ptv3.block import Block
from pointseg.backbones.ptv3.block_spec import BlockSpec
from pointseg.backbones.ptv3.serialization import SerializedVoxels
from pointseg.backbones.ptv3.stages import drop_paths, make_decoder, make_encoder
from pointseg.backbones.ptv3.unet import CurveUNet
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling
from pointseg.ops.attention.space_filling_curves import ORDERS
from pointseg.ops.hardware.linear import Linear


class PointEmbedding(nn.Module):
    """A linear layer of each point's features, normalised; masked points get a learned vector instead."""

    def __init__(self, in_channels: int, channels: int, mask_token: bool) -> None:
        super().__init__()
        self.stem = nn.ModuleDict(
            {
                "linear": Linear(in_channels, channels),
                "norm": nn.LayerNorm(channels),
                "act": nn.GELU(),
            }
        )
        self.mask_token = nn.Parameter(torch.zeros(1, channels)) if mask_token else None

    def forward(self, feat: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, in_channels), (N,) bool -> (N, C)."""
        out: Tensor = self.stem["act"](self.stem["norm"](self.stem["linear"](feat)))
        if mask is not None and self.mask_token is not None:
            out = torch.where(mask[:, None], self.mask_token.to(out.dtype), out)
        return out


class Sonata(CurveUNet):
    """Sonata or Concerto; arguments have the names and meaning of ``config`` in their files.

    The defaults are the published base encoder's. (The released constructors' are of another network: for
    weights from a file, give what the file says.)

    Without a decoder, ``Features.feat`` are the features of the last ``upcast + 1`` stages at each point, the
    finest of them first, and ``Features.levels`` hold what each stage gives. With one, both are as those of
    Point Transformer V3.

    Args:
        in_channels: channels of ``Cloud.feat``; the published ones read coord, color, normal.
        order: as in Point Transformer V3.
        stride: voxels per cell along each axis between each stage and the next.
        enc_depths, enc_channels, enc_num_head, enc_patch_size: as in Point Transformer V3.
        dec_depths, dec_channels, dec_num_head: likewise; without effect if ``enc_mode``.
        dec_patch_size: at least ``enc_patch_size``, stage by stage: windows of the decoder are those of the encoder.
        drop_path: as in Point Transformer V3.
        layer_scale: with what the learned factors of attention and MLP begin; None: there are none.
        shuffle_orders: as in Point Transformer V3.
        traceable: without effect, the cells are always kept.
        mask_token: whether there is a vector for the points of ``Cloud.mask``.
        enc_mode: whether there is no decoder.
        freeze_encoder: whether embedding and encoder take no gradients.
        upcast: without a decoder, how many stages are joined to the next coarser one's features on the way to the
            points; None: all. 2 gives the published 1088 channels, all four 1232.
        image_channels, image_drop, image_pooling: as in Point Transformer V3; only with a decoder.
        mlp_ratio, qkv_bias, qk_scale, attn_drop, proj_drop, pre_norm: see ``BlockSpec``.
        enable_flash, upcast_attention, upcast_softmax: see ``BlockSpec``.
        enable_rpe: must be False; no published configuration has it.

    Raises:
        ValueError: lists of other lengths, or values that do not fit.
    """

    def __init__(
        self,
        *,
        in_channels: int = 9,
        order: Sequence[str] = ORDERS,
        stride: Sequence[int] = (2, 2, 2, 2),
        enc_depths: Sequence[int] = (3, 3, 3, 12, 3),
        enc_channels: Sequence[int] = (48, 96, 192, 384, 512),
        enc_num_head: Sequence[int] = (3, 6, 12, 24, 32),
        enc_patch_size: Sequence[int] = (1024, 1024, 1024, 1024, 1024),
        dec_depths: Sequence[int] = (2, 2, 2, 2),
        dec_channels: Sequence[int] = (64, 96, 192, 384),
        dec_num_head: Sequence[int] = (4, 6, 12, 24),
        dec_patch_size: Sequence[int] = (1024, 1024, 1024, 1024),
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.3,
        layer_scale: float | None = None,
        pre_norm: bool = True,
        shuffle_orders: bool = True,
        enable_rpe: bool = False,
        enable_flash: bool = True,
        upcast_attention: bool = False,
        upcast_softmax: bool = False,
        traceable: bool = True,
        mask_token: bool = False,
        enc_mode: bool = True,
        freeze_encoder: bool = False,
        upcast: int | None = None,
        image_channels: int | None = None,
        image_drop: float = 0.0,
        image_pooling: ImagePooling = "max",
    ) -> None:
        who = type(self).__name__
        super().__init__(
            order=order,
            stride=stride,
            shuffle_orders=shuffle_orders,
            image_channels=image_channels,
            image_pooling=image_pooling,
        )
        if enable_rpe:
            raise ValueError(
                f"{who}: 'enable_rpe' must be False: no published network has the table"
            )
        self.check_lists("enc", enc_depths, enc_channels, enc_num_head, enc_patch_size)
        spec = BlockSpec(
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            pre_norm=pre_norm,
            enable_flash=enable_flash,
            upcast_attention=upcast_attention,
            upcast_softmax=upcast_softmax,
            layer_scale=layer_scale,
        )
        self.takes_mask = mask_token
        self.embedding = PointEmbedding(in_channels, enc_channels[0], mask_token)

        def block(
            channels: Sequence[int], heads: Sequence[int], s: int, number: int, drop: float
        ) -> Block:
            attention = Attention(channels[s], heads[s], enc_patch_size[s], number, spec)
            return Block(channels[s], attention, drop, spec)

        make = partial(block, enc_channels, enc_num_head)
        drops = drop_paths(drop_path, enc_depths)
        self.enc = make_encoder(enc_channels, drops, make, nn.LayerNorm)
        self.dec = nn.ModuleDict()
        self.set_channels(in_channels, enc_channels, None if enc_mode else dec_channels, upcast)
        if not enc_mode:
            self.check_lists("dec", dec_depths, dec_channels, dec_num_head, dec_patch_size)
            self.check_windows(enc_patch_size, dec_patch_size, list(map(bool, dec_depths)))
            make = partial(block, dec_channels, dec_num_head)
            self.dec = make_decoder(
                enc_channels, dec_channels, drop_paths(drop_path, dec_depths), make, nn.LayerNorm,
                image_channels=image_channels, image_drop=image_drop,
            )  # fmt: skip
        if freeze_encoder:
            self.embedding.requires_grad_(False)
            self.enc.requires_grad_(False)

    def embed(self, cloud: Cloud, voxels: SerializedVoxels) -> Tensor:
        """(N, C0) features of the points by themselves."""
        feat: Tensor = self.embedding(cloud.feat, cloud.mask)
        return feat
