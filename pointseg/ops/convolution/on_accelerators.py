"""Sparse convolution in plain torch on devices other than CPUs.

The neighbourhoods of a block of targets are gathered side by side, with zeros where there is no voxel, and multiplied
at once: few operations, and each of them large.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pointseg.ops.convolution.kernel_map import KernelMap

_BLOCK = 2**25
"""Gathered numbers at a time."""


def sum_products(rows: Tensor, weight: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) rows with (K, D, C) weights -> (T, D)."""
    size, out_width, width = weight.shape
    table = kernel_map.table
    padded = torch.cat([rows, rows.new_zeros(1, width)])
    flat = weight.transpose(1, 2).reshape(size * width, out_width)
    step = max(1, _BLOCK // (size * width))
    blocks = [
        padded.index_select(0, part.flatten()).view(len(part), size * width) @ flat
        for part in table.split(step)
    ]
    if len(blocks) == 1:
        return blocks[0]
    return torch.cat(blocks) if blocks else rows.new_empty(0, out_width)


def weight_grad(feat: Tensor, grad: Tensor, kernel_map: KernelMap) -> Tensor:
    """(S, C) rows and the (T, D) gradient of the output -> (K, D, C), summed in float32 over blocks."""
    size, width = kernel_map.size, feat.shape[1]
    padded = torch.cat([feat, feat.new_zeros(1, width)])
    wide = torch.promote_types(feat.dtype, torch.float32)
    sums = feat.new_zeros(grad.shape[1], size * width, dtype=wide)
    step = max(1, _BLOCK // (size * width))
    for part, grads in zip(kernel_map.table.split(step), grad.split(step), strict=True):
        sums += grads.T @ padded.index_select(0, part.flatten()).view(len(part), size * width)
    return sums.view(grad.shape[1], size, width).transpose(0, 1).to(feat.dtype)
