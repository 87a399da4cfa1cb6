"""The boxes of PointNeXt's figure: set abstraction, inverted residual, feature propagation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pointseg.backbones.interface.image_injection import ImageBranch
from pointseg.backbones.interface.norm import BatchNorm
from pointseg.ops.grouping.neighbour_features import interpolate, neighbour_max
from pointseg.ops.hardware.pieces import is_cpu, values_at_once

_PIECE = 2**20  # values of pairs at once on a CPU where no gradient is kept


@dataclass(frozen=True)
class Neighbours:
    """Neighbourhoods: k of M sources around each of N queries, and the positions of both.

    All layers of one resolution share it.
    """

    indices: Tensor
    """(N, k) int64 rows of the sources."""
    query: Tensor
    """(N, 3) float32 positions in radii."""
    source: Tensor
    """(M, 3) float32 positions in radii, from the same origin."""

    @property
    def pairs(self) -> int:
        """N k."""
        return self.indices.numel()

    @cached_property
    def weights(self) -> Tensor:
        """(M,) share of the pairs that each source is in."""
        flat = self.indices.flatten()
        if is_cpu(flat):
            counts = torch.bincount(flat, minlength=len(self.source))
        else:  # the host would wait
            counts = flat.new_zeros(len(self.source)).scatter_add_(0, flat, torch.ones_like(flat))
        return counts / self.pairs

    @cached_property
    def steps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means over all pairs of the step d from query to source, and of its products.

        Returns:
            (3,) the mean of d; (M, 3) for each source the mean of what its own steps have beyond
            that; (3, 3) the covariance of d.
        """
        flat = self.indices.flatten()
        step = self.source.index_select(0, flat).view(*self.indices.shape, 3) - self.query[:, None]
        step = step.view(-1, 3)
        mean = step.mean(0)
        step -= mean
        own = torch.zeros_like(self.source).index_add_(0, flat, step) / self.pairs
        return mean, own, step.T @ step / self.pairs


class Norm(BatchNorm):
    """Batch normalisation with the constants of PointNeXt, which are torch's."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.eps, self.momentum = 1e-5, 0.1


class Unit(nn.Sequential):
    """Linear layer, normalisation, activation."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__(nn.Linear(in_channels, channels, bias=False), Norm(channels), nn.ReLU())


class NeighbourLayer(nn.Module):
    """A linear layer on [step to the neighbour in radii, its features], normalised, for all pairs.

    The layer on (N, k, 3 + C) pairs is never computed as such. With W = [P, Q] a pair has
    P (x_j - x_i) + Q f_j = (P x_j + Q f_j) - P x_i: one row for each source less one for each query,
    so gathering is all that is left to do for pairs. Batch statistics over all pairs follow from the
    same rows: the mean and variance of P d + Q f need only how often each source occurs and the
    moments of its steps d, in O(M C). They equal those over pairs (as in the paper, padding counts).
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 + in_channels, channels, bias=False)
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, feat: Tensor, near: Neighbours) -> Tensor:
        """Maximum over neighbours of the normalised layer.

        Args:
            feat: (M, in_channels) of the sources.
            near: the neighbours of each of the N queries.

        Returns:
            (N, channels) float32. An increasing activation may follow: it passes through a maximum.
        """
        source, query, scale, shift = self.terms(feat, near)
        # a channel with a negative scale has its maximum where the layer has its minimum
        sign = torch.where(scale < 0, -1.0, 1.0)
        best = neighbour_max(source * sign, near.indices) * sign - query
        return best * scale + shift

    def terms(self, feat: Tensor, near: Neighbours) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What makes up all pairs: (source_j - query_i) * scale + shift.

        Returns:
            (M, channels), (N, channels), (channels,), (channels,); all float32.
        """
        places, features = self.linear.weight.split([3, feat.shape[1]], dim=1)
        of_feat = F.linear(feat, features)
        with torch.autocast(feat.device.type, enabled=False):  # positions need their 24 bits
            of_feat, places = of_feat.float(), places.float()
            source = of_feat + near.source @ places.T
            mean, var = self._statistics(of_feat, places, near)
            scale = self.norm.weight * torch.rsqrt(var + self.norm.eps)
            return source, near.query @ places.T, scale, self.norm.bias - mean * scale

    def _statistics(
        self, of_feat: Tensor, places: Tensor, near: Neighbours
    ) -> tuple[Tensor, Tensor]:
        """(channels,) mean and variance that the layer is normalised by."""
        norm = self.norm
        assert norm.running_mean is not None and norm.running_var is not None
        if not self.training or near.pairs < 2:
            return norm.running_mean, norm.running_var
        step, own, spread = near.steps
        mean = near.weights @ of_feat
        centred = of_feat - mean
        var = (
            near.weights @ centred.square()
            + 2 * ((centred.T @ own) * places).sum(1)
            + ((places @ spread) * places).sum(1)
        ).clamp(min=0)
        mean = mean + places @ step
        with torch.no_grad():
            assert norm.momentum is not None and norm.num_batches_tracked is not None
            norm.num_batches_tracked += 1
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(var * (near.pairs / (near.pairs - 1)), norm.momentum)
        return mean, var


class Abstraction(nn.Module):
    """The way down: each point that stays sums up those around it.

    With one layer, as in PointNeXt-B to XL: linear, normalisation, activation, maximum. With two, as
    in PointNeXt-S, a second layer before the maximum and what the point itself has added after it;
    the second layer is computed for all pairs, and training keeps its inputs and outputs. (Measured
    over a whole training step in float32: 18 KB per point of PointNeXt-S, 9 KB of PointNeXt-B.)
    """

    def __init__(self, in_channels: int, channels: int, layers: int) -> None:
        super().__init__()
        middle = channels if layers == 1 else channels // 2
        self.group = NeighbourLayer(in_channels, middle)
        self.second = None
        self.skip = None
        if layers == 2:
            self.second = nn.Sequential(nn.Linear(middle, channels, bias=False), Norm(channels))
            self.skip = nn.Linear(in_channels, channels)

    def forward(self, feat: Tensor, near: Neighbours, stays: Tensor) -> Tensor:
        """(M, in_channels) -> (N, channels); ``stays`` are the (N,) rows that the queries have."""
        if self.second is None or self.skip is None:
            return F.relu(self.group(feat, near))
        source, query, scale, shift = self.group.terms(feat, near)
        source, query = source * scale + shift, query * scale
        count, k = near.indices.shape
        keeps = torch.is_grad_enabled() or self.training
        at_once = values_at_once(source, _PIECE) // (k * self.skip.out_features)
        piece = count if keeps else at_once
        best = [
            self._second_layer(source, *part)
            for part in zip(
                query.split(max(piece, 1)), near.indices.split(max(piece, 1)), strict=True
            )
        ]
        return F.relu(torch.cat(best) + self.skip(feat.index_select(0, stays)))

    def _second_layer(self, source: Tensor, query: Tensor, indices: Tensor) -> Tensor:
        assert self.second is not None
        near = source.index_select(0, indices.flatten()).unflatten(0, indices.shape)
        hidden = F.relu(near - query[:, None], inplace=True)  # (n, k, middle)
        found: Tensor = self.second(hidden.flatten(0, 1))
        return found.unflatten(0, indices.shape).amax(1)


class InvertedResidual(nn.Module):
    """InvResMLP: one layer for all neighbours, then a wide bottleneck for each point, and around both."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.group = NeighbourLayer(channels, channels)
        self.widen = Unit(channels, expansion * channels)
        self.narrow = nn.Sequential(
            nn.Linear(expansion * channels, channels, bias=False), Norm(channels)
        )

    def forward(self, feat: Tensor, near: Neighbours) -> Tensor:
        """(N, C) -> (N, C)."""
        return F.relu(feat + self.narrow(self.widen(F.relu(self.group(feat, near)))))


class Propagation(nn.Module):
    """Upsampling of the decoder: interpolated coarse features and the skip, plus projected image features.

    The first layer, on the two concatenated, is computed before interpolation where it reads coarse
    features: interpolation is linear too, so the order does not matter.
    """

    def __init__(
        self,
        in_channels: int,
        skip_channels: int,
        channels: int,
        image_channels: int | None,
        image_drop: float,
    ) -> None:
        super().__init__()
        self.fuse = Unit(in_channels + skip_channels, channels)
        self.mix = Unit(channels, channels)
        self.proj_image_feat = None
        if image_channels is not None:
            self.proj_image_feat = ImageBranch(image_channels, channels, image_drop)

    def forward(
        self,
        feat: Tensor,
        skip: Tensor,
        indices: Tensor,
        distances: Tensor,
        image: Tensor | None,
    ) -> Tensor:
        """(M, in_channels), (N, skip_channels), (N, 3), (N, 3), (N, channels) -> (N, channels).

        ``image`` is what ``self.proj_image_feat`` made of the images.
        """
        linear, norm, activation = self.fuse
        weight: Tensor = linear.weight  # type: ignore[assignment]
        of_feat, of_skip = weight.split([feat.shape[1], skip.shape[1]], dim=1)
        coarse = F.linear(feat, of_feat)
        out = activation(norm(interpolate(coarse, indices, distances) + F.linear(skip, of_skip)))
        if image is not None:
            out = out + image
        return self.mix(out)  # type: ignore[no-any-return]
