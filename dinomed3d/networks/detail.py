"""Detail-recovery stream and decoder: nnU-Net's own 3D CNN, which alone segments already."""

from __future__ import annotations

from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from dinomed3d.networks.cnn_spec import CnnSpec

LAYERS: dict[str, Any] = {
    "conv_op": nn.Conv3d,
    "conv_bias": True,
    "norm_op": nn.InstanceNorm3d,
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": nn.LeakyReLU,
    "nonlin_kwargs": {"inplace": True},
}
"""Kinds of layers in all of nnU-Net's plans."""


class DetailStream(nn.Module):
    """The encoder of nnU-Net's network, level by level, so that tokens can enter its levels.

    Source: DINO-Med3D, the detail-recovery stream; its sizes are those of nnU-Net's PlainConvUNet or
    ResidualEncoderUNet (Isensee 2024, arXiv:2404.09556).
    """

    def __init__(self, stem: nn.Module | None, levels: nn.Sequential) -> None:
        """Store the layers.

        Args:
            stem: the convolution before the first level; a plain encoder has none.
            levels: one module per level, each beginning with its stride.
        """
        super().__init__()
        self.stem = nn.Identity() if stem is None else stem
        self.levels = levels

    def forward(self, volume: Tensor) -> list[Tensor]:
        """(B, C, D, H, W) -> one (B, width, D / s, H / s, W / s) per level, without any tokens."""
        outputs = []
        x = self.stem(volume)
        for level in self.levels:
            x = level(x)
            outputs.append(x)
        return outputs


def build_cnn(
    channels: int, classes: int, cnn: CnnSpec, *, deep_supervision: bool
) -> tuple[DetailStream, UNetDecoder]:
    """The detail stream and nnU-Net's decoder for it, with nnU-Net's random start.

    Args:
        channels: of the volume.
        classes: channels of the logits.
        cnn: sizes of every level.
        deep_supervision: whether the decoder returns the logits of all levels but the coarsest, finest first
            (a list), or those of the finest (a tensor).
    """
    shared: dict[str, Any] = {
        "input_channels": channels,
        "num_classes": classes,
        "n_stages": cnn.levels,
        "features_per_stage": list(cnn.widths),
        "kernel_sizes": [list(kernel) for kernel in cnn.kernels],
        "strides": [list(stride) for stride in cnn.strides],
        "n_conv_per_stage_decoder": list(cnn.decoder_blocks),
        "deep_supervision": deep_supervision,
        **LAYERS,
    }
    if cnn.residual:
        network = ResidualEncoderUNet(n_blocks_per_stage=list(cnn.blocks), **shared)
    else:
        network = PlainConvUNet(n_conv_per_stage=list(cnn.blocks), **shared)
    network.apply(network.initialize)
    decoder: UNetDecoder = network.decoder
    del decoder.encoder  # the detail stream holds it; otherwise every tensor has two names
    return DetailStream(getattr(network.encoder, "stem", None), network.encoder.stages), decoder
