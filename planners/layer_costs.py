"""Cost of each component of the network in a step: parameters, compute (FLOPs), saved activations.

Counted as PyTorch keeps them in mixed precision: activations for the backward pass in 2 bytes, the
transformer's residual stream and the losses in 4.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from dinomed3d.networks.depth_attention import heads_of
from planners.geometry import Geometry

HALF, FULL = 2, 4  # bytes of bfloat16 or float16, and of float32


@dataclass(kw_only=True)
class ComponentCost:
    """Cost of one component of the network in one step."""

    parameters: int = 0
    """Weights and biases."""
    trained: int = 0
    """Weights and biases that learn in this step."""
    flops: float = 0.0
    """Operations of the forward pass; a multiplication and an addition count as two."""
    backward_flops: float = 0.0
    """Operations of the backward pass, including recomputation for it."""
    saved: float = 0.0
    """Bytes of activations kept for the backward pass."""
    copies: float = 0.0
    """Bytes of autocast's half-precision copies of weights."""

    def linear(
        self, inputs: int, outputs: int, times: float, *, bias: bool = True, trained: bool = True,
        input_grad: bool = True,
    ) -> None:  # fmt: skip
        """Add a linear layer or convolution: `inputs` per output value, applied at `times` positions."""
        weights = inputs * outputs
        self.parameters += weights + outputs * bias
        self.trained += (weights + outputs * bias) * trained
        self.copies += HALF * weights
        self.flops += 2 * weights * times
        self.backward_flops += 2 * weights * times * (trained + input_grad)

    def repeat(self, blocks: int, *, run: int, passed: int, kept: int) -> None:
        """Turn the cost of one block into that of several.

        Args:
            blocks: all of them.
            run: of these, the blocks that are executed.
            passed: of these, the blocks that gradients pass.
            kept: of these, the blocks whose copies of weights are kept for it; else one block has some.
        """
        self.parameters *= blocks
        self.trained *= run
        self.copies *= max(1, kept)
        self.flops *= run
        self.backward_flops *= passed

    def add(self, other: ComponentCost) -> None:
        """Add the cost of another part."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def vector(self, values: int, *, trained: bool = True) -> None:
        """Add weights that form no matrix: norms, gains, single tokens."""
        self.parameters += values
        self.trained += values * trained


def embedding(g: Geometry, *, trained: bool) -> ComponentCost:
    """Patch embedding, single tokens, the table of positions (DINOv2) and the final norm."""
    cost = ComponentCost()
    pixels = g.spec.slices * g.channels * g.size.patch**2
    cost.linear(pixels, g.size.width, g.slices * g.patches, trained=trained, input_grad=False)
    cost.backward_flops *= trained
    cost.vector((g.size.prefix + g.size.positions) * g.size.width, trained=trained)
    cost.vector(2 * g.size.width, trained=trained)  # the final norm
    cost.saved = HALF * g.enlarged * trained
    return cost


def block_saved(g: Geometry, tokens: float, *, tuned: bool, updated: bool) -> float:
    """Bytes that one block saves: `tuned` if its weights learn, `updated` if its low-rank updates do."""
    e, h = g.size.width, g.size.hidden
    keeps_inputs = tuned or updated
    residual = FULL * e * 2 + 2 * 2 * FULL  # inputs of both norms, their means and deviations
    attention = HALF * (4 * e if not g.size.rotary else 6 * e) + FULL * g.size.heads
    attention += 2 * HALF * e * keeps_inputs  # inputs of qkv and of the projection
    copies = 2 if g.size.gated and not g.size.packed else 1  # each branch casts its input itself
    mlp = HALF * ((3 if g.size.gated else 1) * h + (copies * e + h) * keeps_inputs)
    gains = 2 * HALF * e * tuned  # inputs of the layer scales
    low_rank = HALF * g.spec.lora_rank * len(g.size.block_linears) * updated
    return tokens * (residual + attention + mlp + gains + low_rank)


def encoder(g: Geometry, *, tuned: bool, checkpointing: bool) -> ComponentCost:
    """The transformer blocks, with their low-rank updates.

    Args:
        g: the batch.
        tuned: True in stage I, where the blocks learn; False in stage II, where the updates do.
        checkpointing: activation checkpointing.
    """
    e, size, spec = g.size.width, g.size, g.spec
    tokens = g.slices * g.tokens
    updated = "lora" in spec.components and not tuned
    grads = tuned or not {"lora", "adapters"}.isdisjoint(spec.components)
    # blocks that gradients pass: in stage II the frozen ones before the tuned ones have none
    passed = g.run_blocks if tuned else g.tuned_blocks * grads
    kept = passed * (not checkpointing)  # blocks that keep their activations and copies of weights
    cost = ComponentCost()
    for inputs, outputs in size.block_linears:
        cost.linear(inputs, outputs, tokens, trained=tuned)
    scores = 4 * g.slices * g.tokens**2 * e  # queries by keys, weights by values
    cost.flops += scores
    cost.backward_flops += 2.5 * scores  # scores are recomputed
    cost.parameters, cost.trained = size.block_parameters, size.block_parameters * tuned
    again = cost.flops * passed * checkpointing
    cost.repeat(size.depth, run=g.run_blocks, passed=passed, kept=kept)
    if "lora" in spec.components:
        updates = ComponentCost()
        for inputs, outputs in size.block_linears:
            for i, o in ((inputs, spec.lora_rank), (spec.lora_rank, outputs)):
                updates.linear(i, o, tokens, bias=False, trained=updated)
        again += updates.flops * g.tuned_blocks * checkpointing
        tuned_kept = g.tuned_blocks * (not checkpointing)
        updates.repeat(g.tuned_blocks, run=g.tuned_blocks, passed=g.tuned_blocks, kept=tuned_kept)
        cost.add(updates)
    cost.backward_flops += again
    if checkpointing and grads:
        cost.saved = (passed + (not tuned)) * FULL * e * tokens  # the last tap's too, for its norm
    elif grads:
        cost.saved = passed * block_saved(g, tokens, tuned=tuned, updated=updated)
    return cost


def adapters(g: Geometry, *, checkpointing: bool) -> ComponentCost:
    """The inter-slice modules of the tuned blocks: 3D adapters, or attention along depth."""
    e, a, blocks = g.size.width, g.spec.adapter_width, g.tuned_blocks
    patches = g.slices * g.patches
    cost = ComponentCost()
    cost.vector(2 * e)
    if g.spec.inter_slice == "attention":
        cost.linear(e, 3 * a, patches)
        scores = 4 * patches * g.depth * a
        cost.flops += scores
        cost.backward_flops += 2.5 * scores
    else:
        cost.linear(e, a, patches)
        cost.linear(3 * a, a, patches)
    cost.linear(a, e, patches)
    cost.repeat(blocks, run=blocks, passed=blocks, kept=blocks)
    if checkpointing:
        cost.backward_flops += cost.flops
    else:
        cost.saved = blocks * adapter_saved(g)
    return cost


def adapter_saved(g: Geometry) -> float:
    """Bytes that one inter-slice module saves."""
    e, a = g.size.width, g.spec.adapter_width
    inside: float
    if g.spec.inter_slice == "attention":
        # queries, keys and values, the rotated ones, the result before and after it is put in order
        inside = HALF * 7 * a + FULL * heads_of(a)
    else:
        inside = HALF * a * (2 + (g.depth + 2) / g.depth)  # the convolution reads repeated ends
    bottleneck = g.slices * g.patches * (2 * FULL + HALF * e + inside)
    return FULL * e * g.slices * g.tokens + bottleneck


def block_passing(g: Geometry, *, tuned: bool, checkpointing: bool) -> float:
    """Temporary bytes of the backward pass through one block.

    These are the gradients of its output, of the MLP's hidden layer and of the MLP's input; with
    checkpointing also the recomputed activations. 0 if no gradient passes the block.
    """
    tokens = g.slices * g.tokens
    updated = "lora" in g.spec.components and not tuned
    adapted = "adapters" in g.spec.components and not tuned
    if not (tuned or updated or adapted):
        return 0.0
    passing: float = tokens * (FULL * g.size.width + HALF * (g.size.width + g.size.hidden))
    if checkpointing:
        passing += block_saved(g, tokens, tuned=tuned, updated=updated)
        passing += adapter_saved(g) * adapted
    return passing


def conv_norm_act(
    cost: ComponentCost, inputs: int, outputs: int, kernel: int, voxels: float, *, input_grad: bool = True
) -> None:  # fmt: skip
    """Add a convolution with norm, which saves both outputs; its input is saved elsewhere."""
    cost.linear(inputs * kernel, outputs, voxels, bias=False, input_grad=input_grad)
    cost.vector(2 * outputs)
    cost.saved += 2 * HALF * outputs * voxels


def neck(g: Geometry, gate: int) -> ComponentCost:
    """The neck; `gate` is the coarsest level of the detail stream."""
    spec, w = g.spec, g.spec.pyramid_width
    patches = g.slices * g.patches
    cost = ComponentCost()
    read = len(g.taps) * g.size.width
    conv_norm_act(cost, read, w, 1, patches)
    cost.saved += HALF * read * patches  # the concatenated taps
    for level in range(gate, spec.levels):
        stride = 2**level
        if stride < spec.voxels_per_token:
            factor = spec.voxels_per_token // stride
            cost.linear(w, w * factor**2, patches)
            cost.parameters -= w * (factor**2 - 1)  # one bias for all positions of the kernel
            cost.trained -= w * (factor**2 - 1)
            if level in (gate, spec.levels - 1):  # elsewhere the decoder saves its own copy
                cost.saved += HALF * w * g.voxels[level]
        for step in range((stride // spec.voxels_per_token).bit_length() - 1):
            conv_norm_act(cost, w, w, 9, patches / 4 ** (step + 1))
    return cost


def detail(g: Geometry, channels: int) -> ComponentCost:
    """The detail stream, which reads all channels, including the previous configuration's segmentation."""
    cost = ComponentCost()
    before = channels
    for level, width in enumerate(g.spec.detail_widths):
        kernel = 9 * g.spec.depth_kernels[level]
        conv_norm_act(cost, before, width, kernel, g.voxels[level], input_grad=level > 0)
        conv_norm_act(cost, width, width, kernel, g.voxels[level])
        before = width
    cost.saved += HALF * channels * g.voxels[0]
    return cost


def fusion(g: Geometry, gate: int) -> ComponentCost:
    """The gated fusion."""
    cost = ComponentCost()
    d, voxels = g.spec.detail_widths[gate], g.voxels[gate]
    cost.linear(g.spec.pyramid_width, d, voxels)
    cost.linear(2 * d, d, voxels)
    cost.saved = HALF * 3 * d * voxels  # both streams, concatenated, and the gate
    return cost


def decoder(g: Geometry) -> ComponentCost:
    """The decoder."""
    cost, skips, widths = ComponentCost(), g.spec.decoder_skips, g.spec.decoder_widths
    for level in range(len(skips) - 1):
        below = skips[-1] if level == len(skips) - 2 else widths[level + 1]
        w, voxels = widths[level], g.voxels[level]
        cost.linear(below, 4 * w, g.voxels[level + 1])
        cost.parameters -= 3 * w  # one bias for all four positions of the kernel
        cost.trained -= 3 * w
        conv_norm_act(cost, w + skips[level], w, 9 * g.spec.depth_kernels[level], voxels)
        cost.saved += HALF * (w + skips[level]) * voxels  # the step's input
        if level < g.spec.deep_supervision_heads:
            cost.linear(w, g.classes, voxels)
    return cost


def loss(classes: int, voxels: float) -> ComponentCost:
    """Cross-entropy and Dice of one output: two softmaxes and a one-hot target; labels as int64."""
    return ComponentCost(saved=voxels * (3 * FULL * classes + 8))
