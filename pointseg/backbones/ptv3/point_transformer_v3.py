"""Point Transformer V3: a U-Net of attention in windows along space-filling curves, see ``unet``.

Source: Wu 2024, arXiv:2312.10035, from its text and published configurations. Parameters have
Pointcept's names and shapes, so that its checkpoints load. Features of images are added on the way
up, as DITR does (Knaebel 2025, arXiv:2503.18944, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pointseg.backbones.interface.norm import BatchNorm
from pointseg.backbones.ptv3.attention import Attention
from pointseg.backbones.ptv3.block import Block
from pointseg.backbones.ptv3.block_spec import BlockSpec
from pointseg.backbones.ptv3.pooling import Stem
from pointseg.backbones.ptv3.serialization import SerializedVoxels
from pointseg.backbones.ptv3.stages import drop_paths, make_decoder, make_encoder
from pointseg.backbones.ptv3.unet import CurveUNet
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling
from pointseg.ops.attention.space_filling_curves import ORDERS
from pointseg.ops.grouping.segments import Segments


class PointTransformerV3(CurveUNet):
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
        mlp_ratio, qkv_bias, qk_scale, attn_drop, proj_drop, pre_norm: see ``BlockSpec``.
        enable_rpe, enable_flash, upcast_attention, upcast_softmax: see ``BlockSpec``.

    Raises:
        ValueError: lists of other lengths, or values that do not fit.
    """

    reads_skip = True

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
        super().__init__(
            order=order,
            stride=stride,
            shuffle_orders=shuffle_orders,
            image_channels=image_channels,
            image_pooling=image_pooling,
        )
        if any(step & (step - 1) for step in self.stride):
            raise ValueError(
                f"PointTransformerV3: 'stride' must be powers of two, got {list(self.stride)}"
            )
        self.check_lists("enc", enc_depths, enc_channels, enc_num_head, enc_patch_size)
        self.check_lists("dec", dec_depths, dec_channels, dec_num_head, dec_patch_size)
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

        def enc_block(s: int, number: int, drop: float) -> Block:
            attention = Attention(enc_channels[s], enc_num_head[s], enc_patch_size[s], number, spec)
            return Block(enc_channels[s], attention, drop, spec)

        def dec_block(s: int, number: int, drop: float) -> Block:
            attention = Attention(dec_channels[s], dec_num_head[s], dec_patch_size[s], number, spec)
            return Block(dec_channels[s], attention, drop, spec)

        drops = drop_paths(drop_path, enc_depths)
        self.enc = make_encoder(enc_channels, drops, enc_block, BatchNorm)
        drops = drop_paths(drop_path, dec_depths)
        self.dec = make_decoder(
            enc_channels, dec_channels, drops, dec_block, BatchNorm,
            image_channels=image_channels, image_drop=image_drop,
        )  # fmt: skip

    def embed(self, cloud: Cloud, voxels: SerializedVoxels) -> Tensor:
        """(N, C0) features of the points and their neighbours."""
        feat: Tensor = self.embedding(cloud.feat, voxels)
        return feat

    def resolutions(self, cloud: Cloud) -> tuple[list[SerializedVoxels], list[Segments]]:
        """As ``CurveUNet.resolutions``, with the codes of each stage taken from those of the first."""
        first, *others = self.curve_sequences()
        voxels, cells = [SerializedVoxels.of(cloud, self.order, first)], []
        for stride, sequence in zip(self.stride, others, strict=True):
            coarser, segments = voxels[-1].pooled(stride, sequence)
            voxels.append(coarser)
            cells.append(segments)
        return voxels, cells
