"""Cost of the encoder and of what is inside it, one function per component: embedding, blocks, adapters.

Activations for the backward pass are counted as PyTorch keeps them in mixed precision: in 2 bytes, the
transformer's residual stream and the losses in 4. The CNN's components are in `cnn_costs`.
"""

from __future__ import annotations

from dinomed3d.networks.depth_attention import heads_of
from planners.cost.component_cost import FULL, HALF, ComponentCost
from planners.cost.geometry import Geometry


def embedding(g: Geometry, *, trained: bool) -> ComponentCost:
    """Patch embedding, single tokens, the table of positions (DINOv2) and the final norm."""
    cost = ComponentCost()
    pixels = g.spec.slices * g.channels * g.size.patch**2
    cost.linear(pixels, g.size.width, g.slices * g.patches, trained=trained, input_grad=False)
    cost.backward_flops *= trained
    cost.copies *= trained  # a frozen layer's copy is freed at once
    cost.vector((g.size.prefix + g.size.positions) * g.size.width, trained=trained)
    cost.vector(2 * g.size.width, trained=trained)  # the final norm
    cost.saved = HALF * g.enlarged * trained
    return cost


def encoder(g: Geometry, *, learning: bool, checkpointing: bool) -> ComponentCost:
    """The transformer blocks, with the low-rank updates of the tuned ones.

    Args:
        g: the batch.
        learning: True in stage I, where all blocks that run learn; False in stage II, where the tuned
            blocks' updates and adapters do and the blocks before run without gradients.
        checkpointing: activation checkpointing of the blocks that have gradients.
    """
    e, tokens = g.size.width, g.slices * g.tokens
    updated = "lora" in g.spec.components
    block, update = ComponentCost(), ComponentCost()
    for inputs, outputs in g.size.block_linears:
        block.linear(inputs, outputs, tokens, trained=learning)
        if updated:
            for i, o in ((inputs, g.spec.lora_rank), (g.spec.lora_rank, outputs)):
                update.linear(i, o, tokens, bias=False, trained=not learning)
    scores = 4 * g.slices * g.tokens**2 * e  # queries by keys, weights by values
    block.flops += scores
    block.backward_flops += 2.5 * scores  # scores are recomputed
    block.saved = block_saved(g, learning=learning)
    block.parameters, block.trained = g.size.block_parameters, g.size.block_parameters * learning
    passed = g.blocks if learning else g.tuned  # blocks with a backward pass
    cost = ComponentCost()
    cost.add(block, passed)
    cost.add(update, g.tuned)
    if passed and not learning and updated:
        # Nothing before the first tuned block learns: its first layer passes no gradient on. Its first
        # norm keeps nothing, but that of the last tap keeps as much.
        cost.backward_flops -= 2 * tokens * e * (3 * e + g.spec.lora_rank)
        cost.copies -= HALF * 3 * e**2
    if checkpointing and passed:
        cost.copies /= passed  # copies of blocks that have run are freed
        cost.saved = (
            (passed + (not learning)) * FULL * e * tokens
        )  # the last tap's too, for its norm
        cost.backward_flops += block.flops * passed + update.flops * g.tuned
    cost.flops += block.flops * (g.blocks - passed)
    cost.parameters += block.parameters * (g.size.depth - passed)
    return cost


def block_saved(g: Geometry, *, learning: bool) -> float:
    """Bytes that one block with a backward pass saves: `learning` if its weights learn, as in stage I."""
    e, h = g.size.width, g.size.hidden
    updated = "lora" in g.spec.components and not learning
    keeps_inputs = learning or updated
    residual = FULL * e * 2 + 2 * 2 * FULL  # inputs of both norms, their means and deviations
    attention = HALF * (4 * e if not g.size.rotary else 6 * e) + FULL * g.size.heads
    attention += 2 * HALF * e * keeps_inputs  # inputs of qkv and of the projection
    copies = 2 if g.size.gated and not g.size.packed else 1  # each branch casts its input itself
    mlp = HALF * ((3 if g.size.gated else 1) * h + (copies * e + h) * keeps_inputs)
    gains = 2 * HALF * e * learning  # inputs of the layer scales
    low_rank = HALF * g.spec.lora_rank * len(g.size.block_linears) * updated
    return g.slices * g.tokens * (residual + attention + mlp + gains + low_rank)


def adapters(g: Geometry, *, checkpointing: bool) -> ComponentCost:
    """The inter-slice modules of the tuned blocks: 3D adapters, or attention along depth."""
    e, a = g.size.width, g.spec.adapter_width
    patches = g.slices * g.patches
    one, cost = ComponentCost(), ComponentCost()
    one.vector(2 * e)
    if g.spec.inter_slice == "attention":
        one.linear(e, 3 * a, patches)
        scores = 4 * patches * g.grid[0] * a
        one.flops += scores
        one.backward_flops += 2.5 * scores
    else:
        one.linear(e, a, patches)
        one.linear(3 * a, a, patches)
    one.linear(a, e, patches)
    one.saved = adapter_saved(g)
    cost.add(one, g.tuned)
    if checkpointing:
        cost.saved = 0.0
        cost.backward_flops += cost.flops
    return cost


def adapter_saved(g: Geometry) -> float:
    """Bytes that one inter-slice module saves."""
    e, a, depth = g.size.width, g.spec.adapter_width, g.grid[0]
    inside: float
    if g.spec.inter_slice == "attention":
        # queries, keys and values, the rotated ones, the result before and after it is put in order
        inside = HALF * 7 * a + FULL * heads_of(a)
    else:
        inside = HALF * a * (2 + (depth + 2) / depth)  # the convolution reads both ends twice
    bottleneck = g.slices * g.patches * (2 * FULL + HALF * e + inside)
    return FULL * e * g.slices * g.tokens + bottleneck


def block_passing(g: Geometry, *, learning: bool, checkpointing: bool) -> float:
    """Temporary bytes of the backward pass through one block.

    These are the gradients of its output, of the MLP's hidden layer and of the MLP's input; with
    checkpointing also the recomputed activations. 0 if no gradient passes any block.
    """
    tokens = g.slices * g.tokens
    if not (learning or g.tuned):
        return 0.0
    passing: float = tokens * (FULL * g.size.width + HALF * (g.size.width + g.size.hidden))
    if checkpointing:
        passing += block_saved(g, learning=learning)
        passing += adapter_saved(g) * ("adapters" in g.spec.components and not learning)
    return passing


def block_running(g: Geometry) -> float:
    """Temporary bytes of the forward pass through one block that keeps nothing."""
    branches = 2 if g.size.gated else 1
    lora = 3 if "lora" in g.spec.components else 2  # a layer's output, its update, their sum
    hidden = HALF * g.size.hidden * (lora + branches - 1)
    return g.slices * g.tokens * (10 * g.size.width + hidden)
