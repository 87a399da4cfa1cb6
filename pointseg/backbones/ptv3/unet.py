"""The U-Net of stages along space-filling curves that Point Transformer V3 and its descendants share.

    points -> embedding -> blocks ----------------------------- + -> blocks -> features
                             | max over cells                   |
                             +-> blocks --------------- + -> blocks
                                   |                    |
                                   +-> ...  blocks -----+

Without a decoder the features of all stages are walked down to the points instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from pointseg.backbones.interface.features import Backbone, Features, Level
from pointseg.backbones.interface.image_injection import check_pooling, pool_images
from pointseg.backbones.ptv3.serialization import SerializedVoxels
from pointseg.backbones.ptv3.stages import Stage
from pointseg.cloud import Cloud
from pointseg.conventions import ImagePooling
from pointseg.ops.attention.space_filling_curves import ORDERS
from pointseg.ops.grouping.segments import Segments


class CurveUNet(Backbone):
    """Embedding, encoder and decoder; a subclass makes the modules ``embedding``, ``enc`` and ``dec``."""

    enc: nn.ModuleDict
    """``make_encoder``'s stages."""
    dec: nn.ModuleDict
    """``make_decoder``'s stages; none without a decoder."""
    reads_skip = False
    """Whether the first convolution of a decoder stage reads the projected skip connection without the
    unpooled features, as PTv3 was trained."""
    curves: Sequence[Sequence[int]] | None = None
    """Set it to the curves, as numbers in ``order``, that the blocks of each serialised stage follow in turn;
    None: those of ``order`` in evaluation, shuffled where the encoder is trained."""

    def __init__(
        self,
        *,
        order: Sequence[str],
        stride: Sequence[int],
        shuffle_orders: bool,
        image_channels: int | None,
        image_pooling: ImagePooling,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        self.order = (order,) if isinstance(order, str) else tuple(order)
        self.stride = tuple(stride)
        self.shuffle_orders = shuffle_orders
        self.image_channels, self.image_pooling = image_channels, image_pooling
        self.serialised = (True,) * (len(self.stride) + 1)
        """Which stages follow curves."""
        self.upcast: int | None = None
        """Without a decoder: how many stages are joined to the next coarser one's features."""
        check_pooling(who, image_pooling)
        if any(step < 1 for step in self.stride):
            raise ValueError(f"{who}: 'stride' must be >= 1 voxel, got {list(self.stride)}")
        if not self.order or any(name not in ORDERS for name in self.order):
            raise ValueError(
                f"{who}: 'order' must be of {', '.join(ORDERS)}, got {list(self.order)}"
            )

    def forward(
        self, cloud: Cloud, image_feat: Tensor | None = None, image_seen: Tensor | None = None
    ) -> Features:
        """Features of the points and of all levels; see ``Backbone.forward``."""
        self.check_input(cloud, image_feat, image_seen)
        voxels, cells = self.resolutions(cloud)
        feats = self._encode(cloud, voxels, cells)
        if not self.dec:
            feat = upcast(feats, cells, len(cells) if self.upcast is None else self.upcast)
        else:
            images: list[Tensor] = []
            if image_feat is not None:
                images = pool_images(image_feat, image_seen, cells[:-1], self.image_pooling)
            feats = self._decode(feats, voxels, cells, images)
            feat = feats[0]
        parents = [*(segments.index for segments in cells), None]
        levels = [
            Level(here.coord, here.grid_coord, here.offset, rows, parent)
            for here, rows, parent in zip(voxels, feats, parents, strict=True)
        ]
        return Features(feat, tuple(levels))

    def embed(self, cloud: Cloud, voxels: SerializedVoxels) -> Tensor:
        """(N, C0) features of the points."""
        raise NotImplementedError

    def resolutions(self, cloud: Cloud) -> tuple[list[SerializedVoxels], list[Segments]]:
        """The voxels of all stages, and the cells that lead from each to the next."""
        sequences = iter(self.curve_sequences())
        voxels: list[SerializedVoxels] = []
        cells: list[Segments] = []
        for stride, along in zip((1, *self.stride), self.serialised, strict=True):
            orders, sequence = (self.order, next(sequences)) if along else ((), ())
            if not voxels:
                voxels.append(SerializedVoxels.of(cloud, orders, sequence))
                continue
            coarser, segments = voxels[-1].pooled_anew(stride, orders, sequence)
            voxels.append(coarser)
            cells.append(segments)
        return voxels, cells

    def curve_sequences(self) -> Sequence[Sequence[int]]:
        """For each serialised stage the numbers in ``order`` of the curves that its blocks follow, in turn."""
        stages, curves = sum(self.serialised), len(self.order)
        if self.curves is not None:
            if len(self.curves) != stages:
                raise ValueError(
                    f"{type(self).__name__}: 'curves' must have {stages} entries, one for each serialised "
                    f"stage, got {len(self.curves)}"
                )
            return self.curves
        if self.enc.training and self.shuffle_orders:  # a frozen encoder sees those of prediction
            return [torch.randperm(curves).tolist() for _ in range(stages)]
        return [list(range(curves)) for _ in range(stages)]

    def _encode(
        self, cloud: Cloud, voxels: list[SerializedVoxels], cells: list[Segments]
    ) -> list[Tensor]:
        """(M, C) of each stage."""
        feat, feats = self.embed(cloud, voxels[0]), []
        for s, here in enumerate(voxels):
            stage = cast(Stage, self.enc[f"enc{s}"])
            if stage.down is not None:
                feat = stage.down(feat, cells[s - 1])  # (M, C): maxima over cells
            feat = stage(feat, here)
            feats.append(feat)
        return feats

    def _decode(
        self,
        feats: list[Tensor],
        voxels: list[SerializedVoxels],
        cells: list[Segments],
        images: list[Tensor],
    ) -> list[Tensor]:
        """(M, C) of each stage, the coarsest being the encoder's."""
        feat = feats[-1]
        levels = [feat]
        for s, segments in reversed(list(enumerate(cells))):
            stage = cast(Stage, self.dec[f"dec{s}"])
            assert stage.up is not None
            skip = stage.up.proj_skip(feats[s])
            feat = stage.up(feat, skip, segments, images.pop() if images else None)  # (N, C)
            feat = stage(feat, voxels[s], skip if self.reads_skip else None)
            levels.insert(0, feat)
        return levels

    def check_lists(
        self,
        part: str,
        depths: Sequence[int],
        channels: Sequence[int],
        heads: Sequence[int],
        windows: Sequence[int],
        **others: Sequence[object],
    ) -> None:
        """Refuse lists of another length than the stages of the encoder, "enc", or the decoder, "dec"."""
        wanted = len(self.stride) + (part == "enc")
        lists = {"depths": depths, "channels": channels, "num_head": heads, "patch_size": windows}
        for name, values in (lists | others).items():
            if len(values) != wanted:
                raise ValueError(
                    f"{type(self).__name__}: '{part}_{name}' must have {wanted} entries, since 'stride' has "
                    f"{len(self.stride)}, got {list(values)}"
                )

    def set_channels(
        self,
        in_channels: int,
        enc_channels: Sequence[int],
        dec_channels: Sequence[int] | None,
        upcast: int | None,
    ) -> None:
        """State the channels of inputs and outputs.

        Args:
            in_channels: of ``Cloud.feat``.
            enc_channels: of the encoder's stages.
            dec_channels: of the decoder's; None: there is none.
            upcast: see the attribute.

        Raises:
            ValueError: ``upcast`` with a decoder or out of range, image features without a decoder.
        """
        who, most = type(self).__name__, len(self.stride)
        self.in_channels, self.upcast = in_channels, upcast
        if dec_channels is not None:
            if upcast is not None:
                raise ValueError(f"{who}: 'upcast' must be left out with a decoder, got {upcast}")
            self.level_channels = (*dec_channels, enc_channels[-1])
            self.out_channels = dec_channels[0]
            return
        if upcast is not None and not 0 <= upcast <= most:
            raise ValueError(f"{who}: 'upcast' must be 0 to {most} stages, got {upcast}")
        if self.image_channels is not None:
            raise ValueError(
                f"{who}: 'image_channels' must be left out with enc_mode=True: image features are added in "
                "the decoder, build it with enc_mode=False"
            )
        self.level_channels = tuple(enc_channels)
        self.out_channels = sum(enc_channels[-1 - (most if upcast is None else upcast) :])

    def check_windows(
        self,
        enc_patch_size: Sequence[int],
        dec_patch_size: Sequence[int],
        attends: Sequence[bool],
    ) -> None:
        """Refuse windows of the decoder that are smaller than the encoder's, which it goes on with.

        Which stages of the decoder have attention, ``attends`` says.

        The released code keeps the table of windows that the encoder made; larger windows of the decoder
        change nothing there, smaller ones are undefined.
        """
        for s, (enc, dec) in enumerate(zip(enc_patch_size, dec_patch_size, strict=False)):
            if attends[s] and dec < enc:
                raise ValueError(
                    f"{type(self).__name__}: 'dec_patch_size' must be at least 'enc_patch_size', whose windows "
                    f"the decoder keeps, got {dec} and {enc} in stage {s}"
                )


def upcast(feats: Sequence[Tensor], cells: Sequence[Segments], steps: int) -> Tensor:
    """Walk from the coarsest stage to the points, joining the features of so many stages on the way.

    Args:
        feats: (M, C) of each stage, the finest first.
        cells: in which cell of the next stage each row of a stage is.
        steps: how many times a stage's own features are put before those that come from its cells;
            after that the latter are only copied. As many as cells: all stages are joined.

    Returns:
        (N, C): the channels of the last ``steps + 1`` stages, the finest of them first.

    Source: Sonata (Wu 2025, arXiv:2503.16429), released code.
    """
    feat = feats[-1]
    for number, segments in enumerate(reversed(cells)):
        feat = segments.spread(feat)
        if number < steps:
            feat = torch.cat([feats[-2 - number], feat], 1)
    return feat
