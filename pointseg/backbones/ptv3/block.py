"""The block of Point Transformer V3, and its parts but for attention: a convolution for position, an MLP, residuals."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pointseg.backbones.ptv3.attention import Attention
from pointseg.backbones.ptv3.block_spec import BlockSpec
from pointseg.backbones.ptv3.serialization import SerializedVoxels
from pointseg.ops.convolution.layers import SubmanifoldConv3d
from pointseg.ops.hardware.linear import Linear
from pointseg.ops.hardware.pieces import is_cpu

_MLP_ROWS = 4096


class Mlp(nn.Module):
    """Two linear layers with GELU between."""

    def __init__(self, channels: int, spec: BlockSpec) -> None:
        super().__init__()
        hidden = int(channels * spec.mlp_ratio)
        self.fc1 = Linear(channels, hidden)
        self.act = nn.GELU()
        self.fc2 = Linear(hidden, channels)
        self.drop = nn.Dropout(spec.proj_drop)

    def forward(self, feat: Tensor) -> Tensor:
        """(M, C) -> (M, C)."""
        if torch.is_grad_enabled() or not is_cpu(feat):
            return self._rows(feat)
        # nothing is kept for gradients: so few rows at a time that the hidden layer stays in the cache
        first, *others = feat.split(_MLP_ROWS)
        done = self._rows(first)
        out = done.new_empty(feat.shape)
        out[: len(done)] = done
        for number, rows in enumerate(others, 1):
            out[number * _MLP_ROWS :][: len(rows)] = self._rows(rows)
        return out

    def _rows(self, feat: Tensor) -> Tensor:
        hidden = self.drop(self.act(self.fc1(feat)))
        out: Tensor = self.drop(self.fc2(hidden))
        return out


class DropPath(nn.Module):
    """Drops whole rows in training, and scales the others so that the mean stays.

    Source: Huang 2016, arXiv:1603.09382.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, feat: Tensor) -> Tensor:
        """(M, C) -> (M, C)."""
        if not self.training or self.probability == 0:
            return feat
        kept = 1 - self.probability
        return feat * torch.empty_like(feat[:, :1]).bernoulli_(kept).div_(kept)


class LayerScale(nn.Module):
    """A learned factor per channel.

    Source: Touvron 2021, arXiv:2103.17239, section 2.
    """

    def __init__(self, channels: int, start: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), float(start)))

    def forward(self, feat: Tensor) -> Tensor:
        """(M, C) -> (M, C)."""
        return feat * self.gamma


class LocalConvolution(nn.ModuleList):
    """A convolution over 3 x 3 x 3 voxels, a linear layer, normalisation: (M, C) -> (M, C).

    It has the layers as a list, which gives the parameters the published names.
    """

    def __init__(self, channels: int) -> None:
        convolution = SubmanifoldConv3d(channels, channels, 3, bias=True)
        super().__init__([convolution, Linear(channels, channels), nn.LayerNorm(channels)])

    def forward(self, feat: Tensor, voxels: SerializedVoxels) -> Tensor:
        """Read the (M, C) features of voxels and their neighbours."""
        convolution, linear, norm = self
        out: Tensor = norm(linear(convolution(feat, voxels.grid)))
        return out


class AttentionAndMlp(nn.Module):
    """Attention, then an MLP, each added to what it reads; blocks of all kinds end with them."""

    def add_layers(
        self, channels: int, attention: Attention, drop_path: float, spec: BlockSpec
    ) -> None:
        """Begin with random weights; a block calls this once its own layers are there.

        Args:
            channels: C.
            attention: of this block.
            drop_path: probability with which what is added is dropped.
            spec: settings of all blocks.
        """
        self.pre_norm = spec.pre_norm
        self.norm1 = nn.Sequential(nn.LayerNorm(channels))
        self.attn = attention
        self.norm2 = nn.Sequential(nn.LayerNorm(channels))
        self.mlp = nn.Sequential(Mlp(channels, spec))
        self.ls1: nn.Module = nn.Identity()
        self.ls2: nn.Module = nn.Identity()
        if spec.layer_scale is not None:
            self.ls1 = nn.Sequential(LayerScale(channels, spec.layer_scale))
            self.ls2 = nn.Sequential(LayerScale(channels, spec.layer_scale))
        self.drop_path = DropPath(drop_path)

    def attend(self, feat: Tensor, voxels: SerializedVoxels) -> Tensor:
        """(M, C) -> (M, C)."""
        feat = self._add(feat, self.norm1, lambda rows: self.ls1(self.attn(rows, voxels)))
        return self._add(feat, self.norm2, lambda rows: self.ls2(self.mlp(rows)))

    def _add(self, feat: Tensor, norm: nn.Module, branch: Callable[[Tensor], Tensor]) -> Tensor:
        if self.pre_norm:
            return feat + self.drop_path(branch(norm(feat)))
        normalised: Tensor = norm(feat + self.drop_path(branch(feat)))
        return normalised


class Block(AttentionAndMlp):
    """Position, attention, MLP, each added to what it reads."""

    def __init__(
        self, channels: int, attention: Attention, drop_path: float, spec: BlockSpec
    ) -> None:
        super().__init__()
        self.cpe = LocalConvolution(channels)
        self.add_layers(channels, attention, drop_path, spec)

    def forward(
        self, feat: Tensor, voxels: SerializedVoxels, nearby: Tensor | None = None
    ) -> Tensor:
        """(M, C) -> (M, C); the convolution reads ``nearby``, (M, C), where that is given."""
        feat = feat + self.cpe(feat if nearby is None else nearby, voxels)
        return self.attend(feat, voxels)
