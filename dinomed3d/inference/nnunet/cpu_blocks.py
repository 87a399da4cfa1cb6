"""Convolution, instance normalisation and activation of nnU-Net's networks as one step on a CPU, in float32.

The same arithmetic in another order of memory. Channels come last, as oneDNN convolves fastest, and every convolution
goes through oneDNN, also small ones that torch leaves to slower code. Normalisation and activation change the result
of the convolution in place, a few planes at a time, while they are in the cache.
"""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from dynamic_network_architectures.building_blocks.simple_conv_blocks import ConvDropoutNormReLU
from torch import Tensor, nn

CACHED_VALUES = 2**17
"""About this many values per thread are normalised at a time: half a MiB."""
_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)
_NORMS = (nn.InstanceNorm2d, nn.InstanceNorm3d)


def with_cpu_blocks(network: nn.Module) -> nn.Module:
    """A network of nnU-Net, or a DinoMed3D with its CNN, with the faster blocks; the given one stays as it is.

    Both share parameters and buffers, except the weights of most convolutions: if one is trained further, the other
    is of no more use. Of any other network none is made, and itself returned: what its own code does with its
    layers is not known.
    """
    if not torch.backends.mkldnn.is_available() or not _parts(network):
        return network
    shared: dict[int, Any] = {
        id(tensor): tensor for tensor in itertools.chain(network.parameters(), network.buffers())
    }
    network = copy.deepcopy(network, shared)
    for part in _parts(network):
        _put_into(part)
    return network


def _parts(network: Any) -> list[nn.Module]:
    """The parts of a network that are nnU-Net's as they are."""
    module = type(network).__module__
    if module.startswith("dynamic_network_architectures."):
        return [network]
    # by name: importing it takes seconds, with timm
    return [network.detail, network.decoder] if module == "dinomed3d.networks.network" else []


def _put_into(network: nn.Module) -> None:
    replaced: dict[nn.Module, nn.Module] = {}  # the decoder contains the encoder
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child not in replaced:
                replaced[child] = _replacement(child)
            if child is not None:
                parent._modules[name] = replaced[child]


def _replacement(module: nn.Module) -> nn.Module:
    """The faster module with the same weights, or the module itself."""
    if type(module) is ConvDropoutNormReLU and _fits(module):
        return CpuBlock(module)
    if type(module) in _CONVOLUTIONS and _is_pointwise(module):
        return PointwiseConv(module)
    return module


def _fits(block: Any) -> bool:
    """Whether a block is what `CpuBlock` computes, in this order."""
    norm: Any = getattr(block, "norm", None)
    nonlin = getattr(block, "nonlin", None)
    steps = [
        m for m in (block.conv, getattr(block, "dropout", None), norm, nonlin) if m is not None
    ]
    return (
        list(block.all_modules) == steps
        and type(block.conv) in _CONVOLUTIONS
        and block.conv.padding_mode == "zeros"
        and type(norm) in _NORMS
        and norm.affine
        and not norm.track_running_stats
        and (nonlin is None or type(nonlin) is nn.LeakyReLU)
    )


def _is_pointwise(conv: Any) -> bool:
    """Whether a convolution is one linear layer for all voxels."""
    ones = (1,) * len(conv.kernel_size)
    return bool(
        conv.kernel_size == conv.stride == ones
        and conv.groups == 1
        and not any(conv.padding)
        and conv.bias is not None
    )


class PointwiseConv(nn.Module):
    """A convolution with a kernel of one voxel as a matrix product; torch's own copies the volume first."""

    def __init__(self, conv: Any) -> None:
        """Take over the weights."""
        super().__init__()
        self.weight = conv.weight.detach().flatten(1)
        self.bias = conv.bias.detach()[:, None]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) float32 -> (B, C', *space)."""
        out = x.new_empty((len(x), len(self.weight), *x.shape[2:]))
        for sample, result in zip(x, out, strict=True):
            values = sample.flatten(1) if sample.is_contiguous() else _voxels(sample).T
            torch.addmm(self.bias, self.weight, values, out=result.flatten(1))
        return out


class CpuBlock(nn.Module):
    """A block of nnU-Net's networks: convolution, instance normalisation, leaky ReLU."""

    def __init__(self, block: ConvDropoutNormReLU) -> None:
        """Take over the weights."""
        super().__init__()
        conv = block.conv
        axes = conv.weight.ndim - 2
        self.format = torch.channels_last if axes == 2 else torch.channels_last_3d
        self.weight = conv.weight.detach().contiguous(memory_format=self.format)
        self.bias = conv.bias
        self.placing = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.norm = block.norm
        self.slope = block.nonlin.negative_slope if hasattr(block, "nonlin") else 1.0

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *space) float32 -> (B, C', *space') with the channels last in memory."""
        x = x.contiguous(memory_format=self.format)
        out = torch.mkldnn_convolution(x, self.weight, self.bias, *self.placing)
        for sample in out:
            self._normalise(sample)
        return out

    def _normalise(self, sample: Tensor) -> None:
        """Normalise and activate (C, *space), in place."""
        values = _voxels(sample)
        step = max(1, CACHED_VALUES * torch.get_num_threads() // values.shape[1])
        parts = values.split(step)
        mean, variance = moments(parts)
        wide = (variance + self.norm.eps).rsqrt() * self.norm.weight
        scale, shift = wide.float(), (self.norm.bias - mean * wide).float()
        for part in parts:
            torch.addcmul(shift, part, scale, out=part)
            if self.slope != 1:
                nn.functional.leaky_relu_(part, self.slope)


def _voxels(sample: Tensor) -> Tensor:
    """(C, *space) -> (voxels, C), without a copy where channels are last in memory."""
    return sample.movedim(0, -1).reshape(-1, len(sample))


def moments(parts: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, of parts (n, C) of one volume; joined in float64.

    Source: Chan, Golub, LeVeque 1979, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances.
    """
    # by torch's cascade sums: plain ones lose digits where a mean is far from 0
    near = [part.mean(0) for part in parts]
    if len(parts) == 1:  # the same numbers; of small volumes joining would take most of the time
        return near[0].double(), (parts[0] - near[0]).square_().mean(0).double()
    counts = torch.tensor([float(len(part)) for part in parts], dtype=torch.float64)[:, None]
    variances = torch.stack(
        [(part - mean).square_().mean(0) for part, mean in zip(parts, near, strict=True)]
    ).double()
    means = torch.stack(near).double()
    shares = counts / counts.sum()
    mean = (means * shares).sum(0)
    variance = ((variances + (means - mean).square()) * shares).sum(0)
    return mean, variance
