"""LitePT: a U-Net with convolutions in its fine stages and attention in its coarse ones.

It has the stem, pooling and unpooling of Point Transformer V3, pools on voxel coordinates as Sonata does, and
turns queries and keys by the voxels of the stage instead of adding a convolution to each block.

Source: the released code of LitePT (Yue 2025, arXiv:2512.13689). Unlike there, evaluation follows the curves in their
given order: the released models shuffle them then, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from pointseg.backbones.interface.norm import BatchNorm
from pointseg.backbones.ptv3.attention import Attention
from pointseg.backbones.ptv3.block import AttentionAndMlp, LocalConvolution
from pointseg.backbones.ptv3.block_spec import BlockSpec
from pointseg.backbones.ptv3.pooling import Stem
from pointseg.backbones.ptv3.rotary_positions import RotaryPositions
from pointseg.backbones.ptv3.serialization import SerializedVoxels
from pointseg.backbones.ptv3.stages import drop_paths, make_decoder, make_encoder
from pointseg.backbones.ptv3.unet import CurveUNet
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling
from pointseg.ops.attention.space_filling_curves import ORDERS


class LitePTBlock(AttentionAndMlp):
    """A convolution, or attention and MLP, or both, each added to what it reads.

    Without a convolution it begins with a normalisation, which is not added but replaces what it reads.
    """

    def __init__(
        self,
        channels: int,
        *,
        convolves: bool,
        attention: Attention | None,
        drop_path: float,
        spec: BlockSpec,
    ) -> None:
        super().__init__()
        self.convolves, self.attends = convolves, attention is not None
        if convolves:
            self.conv = LocalConvolution(channels)
        else:
            self.norm0 = nn.Sequential(nn.LayerNorm(channels))
        if attention is not None:
            self.add_layers(channels, attention, drop_path, spec)

    def forward(self, feat: Tensor, voxels: SerializedVoxels) -> Tensor:
        """(M, C) -> (M, C)."""
        feat = feat + self.conv(feat, voxels) if self.convolves else self.norm0(feat)
        return self.attend(feat, voxels) if self.attends else feat


@dataclass(frozen=True)
class _Part:
    """What the blocks of an encoder or decoder are made of, stage by stage."""

    channels: Sequence[int]
    heads: Sequence[int]
    windows: Sequence[int]
    convolves: Sequence[bool]
    attends: Sequence[bool]
    bases: Sequence[float]
    spec: BlockSpec

    def block(self, s: int, number: int, drop_path: float) -> LitePTBlock:
        """Block ``number`` of stage s."""
        channels, heads = self.channels[s], self.heads[s]
        attention = None
        if self.attends[s]:
            rope = RotaryPositions(channels // heads, self.bases[s], positions="grid_coord")
            attention = Attention(channels, heads, self.windows[s], number, self.spec, rope)
        return LitePTBlock(
            channels,
            convolves=self.convolves[s],
            attention=attention,
            drop_path=drop_path,
            spec=self.spec,
        )


class LitePT(CurveUNet):
    """LitePT; arguments have the names and meaning of the released code's, the defaults are its size S.

    Only stages whose encoder has attention follow curves.

    Args:
        in_channels: channels of ``Cloud.feat``; published: color, normal (6) or coord, strength (4).
        order: as in Point Transformer V3.
        stride: voxels per cell along each axis between each stage and the next.
        enc_depths, enc_channels, enc_num_head, enc_patch_size: as in Point Transformer V3.
        enc_conv: for each stage of the encoder whether its blocks convolve.
        enc_attn: for each stage of the encoder whether its blocks have attention and an MLP.
        enc_rope_freq: the base of the rotary frequencies of each stage of the encoder, see ``RotaryPositions``.
        dec_depths, dec_channels, dec_num_head: as in Point Transformer V3; 0 blocks: unpooling alone.
        dec_patch_size: at least ``enc_patch_size`` where there is attention.
        dec_conv, dec_attn, dec_rope_freq: as those of the encoder; attention only where the encoder has it.
        drop_path, shuffle_orders: as in Point Transformer V3.
        enc_mode: whether there is no decoder; the outputs are then as ``Sonata``'s.
        upcast: see ``Sonata``.
        image_channels, image_drop, image_pooling: as in Point Transformer V3; only with a decoder.
        mlp_ratio, qkv_bias, qk_scale, attn_drop, proj_drop, pre_norm: see ``BlockSpec``.

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
        enc_channels: Sequence[int] = (36, 72, 144, 252, 504),
        enc_num_head: Sequence[int] = (2, 4, 8, 14, 28),
        enc_patch_size: Sequence[int] = (1024, 1024, 1024, 1024, 1024),
        enc_conv: Sequence[bool] = (True, True, True, False, False),
        enc_attn: Sequence[bool] = (False, False, False, True, True),
        enc_rope_freq: Sequence[float] = (100.0, 100.0, 100.0, 100.0, 100.0),
        dec_depths: Sequence[int] = (0, 0, 0, 0),
        dec_channels: Sequence[int] = (72, 72, 144, 252),
        dec_num_head: Sequence[int] = (4, 4, 8, 14),
        dec_patch_size: Sequence[int] = (1024, 1024, 1024, 1024),
        dec_conv: Sequence[bool] = (False, False, False, False),
        dec_attn: Sequence[bool] = (False, False, False, False),
        dec_rope_freq: Sequence[float] = (100.0, 100.0, 100.0, 100.0),
        mlp_ratio: float = 4,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.3,
        pre_norm: bool = True,
        shuffle_orders: bool = True,
        enc_mode: bool = False,
        upcast: int | None = None,
        image_channels: int | None = None,
        image_drop: float = 0.0,
        image_pooling: ImagePooling = "max",
    ) -> None:
        super().__init__(
            order=order,
            stride=stride,
            shuffle_orders=shuffle_orders,
            image_channels=image_channels,
            image_pooling=image_pooling,
        )
        self.check_lists(
            "enc", enc_depths, enc_channels, enc_num_head, enc_patch_size,
            conv=enc_conv, attn=enc_attn, rope_freq=enc_rope_freq,
        )  # fmt: skip
        self.serialised = tuple(map(bool, enc_attn))
        spec = BlockSpec(
            mlp_ratio=mlp_ratio,
            qkv_bias=qkv_bias,
            qk_scale=qk_scale,
            attn_drop=attn_drop,
            proj_drop=proj_drop,
            pre_norm=pre_norm,
        )

        self.embedding = Stem(in_channels, enc_channels[0])
        windows = enc_patch_size
        part = _Part(enc_channels, enc_num_head, windows, enc_conv, enc_attn, enc_rope_freq, spec)
        drops = drop_paths(drop_path, enc_depths)
        self.enc = make_encoder(enc_channels, drops, part.block, BatchNorm)
        self.dec = nn.ModuleDict()
        self.set_channels(in_channels, enc_channels, None if enc_mode else dec_channels, upcast)
        if enc_mode:
            return
        self.check_lists(
            "dec", dec_depths, dec_channels, dec_num_head, dec_patch_size,
            conv=dec_conv, attn=dec_attn, rope_freq=dec_rope_freq,
        )  # fmt: skip
        attends = [bool(on and depth) for on, depth in zip(dec_attn, dec_depths, strict=True)]
        for s, on in enumerate(attends):
            if on and not enc_attn[s]:
                raise ValueError(
                    f"LitePT: 'dec_attn' must be False in stage {s}, since 'enc_attn' is: only a stage whose "
                    "encoder has attention follows curves"
                )
        self.check_windows(enc_patch_size, dec_patch_size, attends)
        part = _Part(dec_channels, dec_num_head, windows, dec_conv, dec_attn, dec_rope_freq, spec)
        self.dec = make_decoder(
            enc_channels, dec_channels, drop_paths(drop_path, dec_depths), part.block, BatchNorm,
            image_channels=image_channels, image_drop=image_drop,
        )  # fmt: skip

    def embed(self, cloud: Cloud, voxels: SerializedVoxels) -> Tensor:
        """(N, C0) features of the points and their neighbours."""
        feat: Tensor = self.embedding(cloud.feat, voxels)
        return feat
