"""Stage I: the proxy segmentation task that adapts the 2D encoder to medical images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder
from dinomed3d.networks.embedding import MultiSliceEmbedding
from dinomed3d.networks.encoder_precision import encoder_precision


class ProxyHead(nn.Module):
    """1 x 1 convolution on the last tap, then bilinear interpolation to the slice's size."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        # nnU-Net's -pretrained_weights skips layers of this name, which depend on the classes
        self.seg_layers = nn.Conv2d(channels, classes, 1)

    def forward(self, tap: Tensor, size: tuple[int, int]) -> Tensor:
        """(N, E, h, w) -> (N, classes, *size)."""
        return F.interpolate(self.seg_layers(tap), size, mode="bilinear", align_corners=False)


class ProxyNetwork(nn.Module):
    """Stage I's network: embedding, encoder and proxy head, shared with stage II's network."""

    def __init__(
        self, embedding: MultiSliceEmbedding, encoder: DinoEncoder, head: ProxyHead
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.encoder = encoder
        self.head = head

    def forward(self, stacks: Tensor) -> Tensor:
        """Segment slices given with their neighbours.

        Args:
            stacks: (N, K * C, H, W) from `stack_slices`; any H and W.

        Returns:
            (N, classes, H, W) logits.
        """
        height, width = stacks.shape[-2:]
        token = self.embedding.voxels_per_token
        padded = F.pad(stacks, (0, -width % token, 0, -height % token), mode="replicate")
        images = self.embedding.enlarge(padded)
        with encoder_precision(images.device):
            tap = self.encoder.maps(images)[-1]
        logits = self.head(tap, (padded.shape[-2], padded.shape[-1]))
        return logits[..., :height, :width]
