"""Cost of the CNN and of what lets tokens enter it, level by level: detail stream, neck, fusion, decoder, loss.

Counted like `encoder_costs`. The CNN is nnU-Net's PlainConvUNet or ResidualEncoderUNet; a convolution saves
its input, its norm the convolution's output, and the activation works in place on the norm's output, which is
the next convolution's input. So every convolution with norm adds two maps.
"""

from __future__ import annotations

import math

from planners.cost.component_cost import FULL, HALF, ComponentCost
from planners.cost.geometry import Geometry, Triple


def convolution(
    cost: ComponentCost, inputs: int, outputs: int, kernel: Triple, voxels: float, *,
    bias: bool = True, input_grad: bool = True,
) -> None:  # fmt: skip
    """Add a convolution with norm, which saves both outputs; its input is saved elsewhere."""
    cost.linear(inputs * math.prod(kernel), outputs, voxels, bias=bias, input_grad=input_grad)
    cost.vector(2 * outputs)
    cost.saved += 2 * HALF * outputs * voxels


def detail(g: Geometry, channels: int) -> ComponentCost:
    """The detail stream, which reads all channels, including the previous configuration's segmentation."""
    cost, cnn, before = ComponentCost(), g.spec.cnn, channels
    cost.saved = HALF * channels * g.voxels[0]
    if cnn.residual:
        convolution(
            cost, before, cnn.widths[0], cnn.kernels[0], g.voxels[0], input_grad=False
        )  # the stem
        before = cnn.widths[0]
    for level, voxels in enumerate(g.voxels):
        width, kernel = cnn.widths[level], cnn.kernels[level]
        for number in range(cnn.blocks[level]):
            first = (
                level == number == 0 and not cnn.residual
            )  # reads the image, which needs no gradient
            convolution(cost, before, width, kernel, voxels, input_grad=not first)
            if cnn.residual:
                convolution(cost, width, width, kernel, voxels)
                strided = number == 0 and math.prod(cnn.strides[level]) > 1
                if strided:  # the shortcut's pooling, which autocast does in float32 on CPUs
                    cost.saved += FULL * before * g.voxels[level - 1]
                if before != width:
                    cost.linear(before, width, voxels, bias=False)
                    cost.vector(2 * width)
                    cost.saved += HALF * (width + before * strided) * voxels
            before = width
    return cost


def neck(g: Geometry) -> ComponentCost:
    """The neck's projection and resampling for every level that tokens enter."""
    cost, w = ComponentCost(), g.spec.token_width
    depth, height, width = g.grid
    read, patches = len(g.taps) * g.size.width, g.slices * g.patches
    for level in g.spec.token_levels:
        deep, rows, columns = g.level(level)
        cost.linear(read, w, patches, bias=False, input_grad=g.tuned > 0)
        cost.vector(2 * w)
        # three products, one axis after the other; none of their weights are learned
        sizes = [depth * height * columns, depth * rows * columns, deep * rows * columns]
        for cells, sums in zip(sizes, (width, height, depth), strict=True):
            cost.flops += 2 * g.batch * w * cells * sums
            cost.backward_flops += 2 * g.batch * w * cells * sums
        maps = 2 * depth * height * width + sum(sizes)
        cost.saved += HALF * (read * patches + w * g.batch * maps)
    return cost


def fusion(g: Geometry) -> ComponentCost:
    """The gated fusion of every level that tokens enter."""
    cost = ComponentCost()
    for level in g.spec.token_levels:
        width, voxels = g.spec.cnn.widths[level], g.voxels[level]
        cost.linear(g.spec.token_width, width, voxels)
        cost.linear(2 * width, width, voxels)
        # both streams together, the gate, the tokens' update, and the sum
        cost.saved += HALF * 5 * width * voxels
    return cost


def decoder(g: Geometry) -> ComponentCost:
    """nnU-Net's decoder with a segmentation head at every level but the coarsest."""
    cost, cnn = ComponentCost(), g.spec.cnn
    for level, blocks in enumerate(reversed(cnn.decoder_blocks)):
        width, below, voxels = cnn.widths[level], cnn.widths[level + 1], g.voxels[level]
        stride = math.prod(cnn.strides[level + 1])
        cost.linear(below, stride * width, g.voxels[level + 1], bias=False)
        cost.vector(width)  # one bias for all positions of the kernel
        cost.saved += HALF * 2 * width * voxels  # the step's input: skip and enlarged map
        for number in range(blocks):
            convolution(cost, width * (2 if number == 0 else 1), width, cnn.kernels[level], voxels)
        cost.linear(width, g.classes, voxels)
    return cost


def loss(classes: int, voxels: float) -> ComponentCost:
    """Cross-entropy and Dice of one output: two softmaxes and a one-hot target; labels as int64."""
    return ComponentCost(saved=voxels * (3 * FULL * classes + 8))
