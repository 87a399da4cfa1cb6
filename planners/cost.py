"""What a network costs, counted from its description: parameters, arithmetic, memory of each part.

No module is built. Memory is counted as PyTorch keeps it in mixed precision: activations that the
backward pass needs in 2 bytes, the transformer's residual stream and the losses in 4, weights with
their gradients and AdamW's two moments in 4 each, and the 2-byte copies of weights that autocast makes.
Left out: what libraries take besides (CUDA context, cuDNN workspaces, the allocator's gaps).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dinomed3d.lifting import default_taps
from dinomed3d.networks import NetworkSpec
from planners.encoders import EncoderSize, encoder_size

HALF, FULL = 2, 4  # bytes of bfloat16 or float16, and of float32
ENCODER = ("embedding", "encoder", "adapters")  # parts that the backward pass comes to last


@dataclass(kw_only=True)
class PartCost:
    """One part of the network in one step."""

    parameters: int = 0
    """Weights and biases."""
    trained: int = 0
    """How many of them learn in this step."""
    flops: float = 0.0
    """Forward; one multiplication and one addition are two."""
    backward_flops: float = 0.0
    """Backward, and what is computed again for it."""
    saved: float = 0.0
    """Bytes of activations kept for the backward pass."""
    copies: float = 0.0
    """Bytes of weights in half precision."""

    def linear(
        self, inputs: int, outputs: int, times: float, *, bias: bool = True, trained: bool = True,
        input_grad: bool = True,
    ) -> None:  # fmt: skip
        """Count a linear layer or convolution: `inputs` per output value, applied at `times` places."""
        weights = inputs * outputs
        self.parameters += weights + outputs * bias
        self.trained += (weights + outputs * bias) * trained
        self.copies += HALF * weights
        self.flops += 2 * weights * times
        self.backward_flops += 2 * weights * times * (trained + input_grad)

    def repeat(self, blocks: int, *, run: int) -> None:
        """Turn one block's cost into that of all; those past the last tap are there, but never run."""
        self.parameters *= blocks
        self.trained *= run
        self.copies *= run
        self.flops *= run
        self.backward_flops *= run

    def vector(self, values: int, *, trained: bool = True) -> None:
        """Count weights that are no matrix: norms, gains, single tokens."""
        self.parameters += values
        self.trained += values * trained


@dataclass(frozen=True, kw_only=True)
class StepCost:
    """One training step."""

    parts: Mapping[str, PartCost]
    """By the names of the figure; "loss" last."""
    inputs: float
    """Bytes of the batch and its target."""
    lifting: float
    """Bytes that come and go at the end of the encoder: enlarged slices, its last block or its taps."""
    passing: float
    """Bytes that come and go about the end of the forward pass, beside what is saved."""
    block: float
    """Bytes that come and go while a block of the encoder is passed backwards."""
    reentry: float
    """Gradients with which the backward pass comes to the encoder, bytes."""
    resident: int
    """Parameters that are in memory, also those the step does not touch."""

    @property
    def parameters(self) -> int:
        """Of all parts that take part."""
        return sum(part.parameters for part in self.parts.values())

    @property
    def trained(self) -> int:
        """Parameters that learn."""
        return sum(part.trained for part in self.parts.values())

    @property
    def saved(self) -> float:
        """Bytes kept for the backward pass by all parts."""
        return sum(part.saved for part in self.parts.values())

    @property
    def flops(self) -> float:
        """Forward and backward."""
        return sum(part.flops + part.backward_flops for part in self.parts.values())

    @property
    def state(self) -> float:
        """Bytes of weights, of AdamW's moments, and of the half-precision copies."""
        copies = sum(part.copies for part in self.parts.values())
        return FULL * self.resident + 2 * FULL * self.trained + copies

    @property
    def peak(self) -> float:
        """Bytes at the fullest moment.

        It is one of four. While the encoder ends its forward pass its images are still there. When
        the backward pass begins everything is saved and there is no gradient yet. When it comes to
        the encoder the other parts have nothing left but gradients. At its end there are all
        gradients; on the way there they grow about as evenly as the saved goes.
        """
        inside = [self.parts[name] for name in ENCODER if name in self.parts]
        kept = sum(part.saved for part in inside)
        outside = FULL * (self.trained - sum(part.trained for part in inside))
        moments = (
            kept + self.lifting,
            self.saved + self.passing,
            kept + outside + self.reentry + self.block,
            FULL * self.trained + self.block,
        )
        return self.state + self.inputs + max(moments)


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A batch of patches on the network's grids."""

    spec: NetworkSpec
    size: EncoderSize
    batch: int
    depth: int
    height: int
    """In plane as padded inside, voxels."""
    width: int
    channels: int
    """Of the image, without an earlier stage's segmentation."""
    classes: int
    voxels: Sequence[int] = field(default=())
    """Of the whole batch, by level."""

    @classmethod
    def of(
        cls, spec: NetworkSpec, patch: Sequence[int], batch: int, channels: int, classes: int
    ) -> Geometry:
        """From a patch (D, H, W) or (H, W), and the input's channels, earlier stage included."""
        depth, height, width = (1, *patch)[-3:]
        height, width = (-(-side // spec.multiple) * spec.multiple for side in (height, width))
        voxels = [
            batch * depth * (height // 2**level) * (width // 2**level)
            for level in range(spec.levels)
        ]
        return cls(
            spec=spec,
            size=encoder_size(spec.encoder, spec.encoder_overrides),
            batch=batch,
            depth=depth,
            height=height,
            width=width,
            channels=channels - spec.prior_channels,
            classes=classes,
            voxels=voxels,
        )

    @property
    def slices(self) -> int:
        """All slices of the batch."""
        return self.batch * self.depth

    @property
    def patches(self) -> int:
        """Patch tokens of one slice."""
        t = self.spec.voxels_per_token
        return (self.height // t) * (self.width // t)

    @property
    def tokens(self) -> int:
        """Tokens of one slice with the prefix."""
        return self.patches + self.size.prefix

    @property
    def taps(self) -> Sequence[int]:
        """Blocks that are read."""
        return self.spec.taps or default_taps(self.size.depth)

    @property
    def enlarged(self) -> float:
        """Values of all slices as they enter the encoder."""
        pixels = self.patches * self.size.patch**2
        return self.slices * self.spec.slices * self.channels * pixels


def _embedding(g: Geometry, *, trained: bool) -> PartCost:
    """Patch embedding and single tokens; the table of positions where there is one."""
    cost = PartCost()
    pixels = g.spec.slices * g.channels * g.size.patch**2
    cost.linear(pixels, g.size.width, g.slices * g.patches, trained=trained, input_grad=False)
    cost.backward_flops *= trained
    cost.vector((g.size.prefix + g.size.positions) * g.size.width, trained=trained)
    cost.vector(2 * g.size.width, trained=trained)  # the final norm
    cost.saved = HALF * g.enlarged * trained
    return cost


def _block_saved(g: Geometry, tokens: float, *, tuned: bool, updated: bool) -> float:
    """Bytes that one block keeps: `tuned` if its own weights learn, `updated` if low-rank ones do."""
    e, h = g.size.width, g.size.hidden
    keeps_inputs = tuned or updated
    residual = FULL * e * 2 + 2 * 2 * FULL  # inputs of both norms, their means and deviations
    attention = HALF * (4 * e if not g.size.rotary else 6 * e) + FULL * g.size.heads
    attention += 2 * HALF * e * keeps_inputs  # inputs of qkv and of the projection
    copies = 2 if g.size.gated and not g.size.packed else 1  # each branch rounds its input itself
    mlp = HALF * ((3 if g.size.gated else 1) * h + (copies * e + h) * keeps_inputs)
    gains = 2 * HALF * e * tuned  # what the layer scales multiply
    low_rank = HALF * g.spec.lora_rank * len(g.size.block_linears) * updated
    return tokens * (residual + attention + mlp + gains + low_rank)


def _encoder(g: Geometry, *, tuned: bool, checkpointing: bool) -> PartCost:
    """The transformer blocks, with their low-rank updates.

    Args:
        g: the batch.
        tuned: stage I, in which they learn; else stage II, in which the low-rank updates do.
        checkpointing: keep the input of each block alone.
    """
    e, size, spec = g.size.width, g.size, g.spec
    blocks = g.taps[-1] + 1
    tokens = g.slices * g.tokens
    updated = "lora" in spec.parts and not tuned
    grads = tuned or not {"lora", "adapters"}.isdisjoint(spec.parts)
    cost = PartCost()
    for inputs, outputs in size.block_linears:
        cost.linear(inputs, outputs, tokens, trained=tuned, input_grad=grads)
    scores = 4 * g.slices * g.tokens**2 * e  # queries by keys, weights by values
    cost.flops += scores
    cost.backward_flops += 2.5 * scores * grads  # scores are computed again
    exact = PartCost(parameters=size.block_parameters, trained=size.block_parameters * tuned)
    cost.parameters, cost.trained = exact.parameters, exact.trained
    if "lora" in spec.parts:
        for inputs, outputs in size.block_linears:
            for i, o in ((inputs, spec.lora_rank), (spec.lora_rank, outputs)):
                cost.linear(i, o, tokens, bias=False, trained=updated, input_grad=grads)
    cost.repeat(size.depth, run=blocks)
    if checkpointing or not grads:
        cost.copies /= blocks  # nothing keeps those of the blocks that have been run
    if checkpointing and grads:
        cost.saved = (blocks + (not tuned)) * FULL * e * tokens  # the last tap's too, for its norm
        cost.backward_flops += cost.flops
    elif grads:
        cost.saved = blocks * _block_saved(g, tokens, tuned=tuned, updated=updated)
    return cost


def _adapters(g: Geometry, *, checkpointing: bool) -> PartCost:
    e, a = g.size.width, g.spec.adapter_width
    patches = g.slices * g.patches
    cost = PartCost()
    blocks = g.taps[-1] + 1
    cost.vector(2 * e)
    cost.linear(e, a, patches)
    cost.linear(3 * a, a, patches)
    cost.linear(a, e, patches)
    cost.repeat(g.size.depth, run=blocks)
    if checkpointing:
        cost.backward_flops += cost.flops
    else:
        cost.saved = blocks * _adapter_saved(g)
    return cost


def _adapter_saved(g: Geometry) -> float:
    """Bytes that one adapter keeps."""
    e, a = g.size.width, g.spec.adapter_width
    bottleneck = g.slices * g.patches * (2 * FULL + HALF * (e + 3 * a))
    return FULL * e * g.slices * g.tokens + bottleneck


def _block_passing(g: Geometry, *, tuned: bool, checkpointing: bool) -> float:
    """Bytes that come and go while a block is passed backwards.

    The gradients of its output, of the MLP's hidden layer and of the MLP's input; with checkpointing
    all that the block keeps elsewhere. Nothing if no gradient passes it.
    """
    parts, tokens = g.spec.parts, g.slices * g.tokens
    updated = "lora" in parts and not tuned
    adapted = "adapters" in parts and not tuned
    if not (tuned or updated or adapted):
        return 0.0
    passing: float = tokens * (FULL * g.size.width + HALF * (g.size.width + g.size.hidden))
    if checkpointing:
        passing += _block_saved(g, tokens, tuned=tuned, updated=updated)
        passing += _adapter_saved(g) * adapted
    return passing


def _conv_norm_act(
    cost: PartCost, inputs: int, outputs: int, kernel: int, voxels: float, *, input_grad: bool = True
) -> None:  # fmt: skip
    """A convolution whose output and whose norm's output are kept; its input is somebody's output."""
    cost.linear(inputs * kernel, outputs, voxels, bias=False, input_grad=input_grad)
    cost.vector(2 * outputs)
    cost.saved += 2 * HALF * outputs * voxels


def _neck(g: Geometry, gate: int) -> PartCost:
    spec, w = g.spec, g.spec.pyramid_width
    patches = g.slices * g.patches
    cost = PartCost()
    read = len(g.taps) * g.size.width
    _conv_norm_act(cost, read, w, 1, patches)
    cost.saved += HALF * read * patches  # the taps together
    for level in range(gate, spec.levels):
        stride = 2**level
        if stride < spec.voxels_per_token:
            factor = spec.voxels_per_token // stride
            cost.linear(w, w * factor**2, patches)
            cost.parameters -= w * (factor**2 - 1)  # one bias for all places of the kernel
            cost.trained -= w * (factor**2 - 1)
            if level in (gate, spec.levels - 1):  # elsewhere the decoder keeps its own copy
                cost.saved += HALF * w * g.voxels[level]
        for step in range((stride // spec.voxels_per_token).bit_length() - 1):
            _conv_norm_act(cost, w, w, 9, patches / 4 ** (step + 1))
    return cost


def _detail(g: Geometry, channels: int) -> PartCost:
    cost = PartCost()
    before = channels
    for level, width in enumerate(g.spec.detail_widths):
        kernel = 9 * g.spec.depth_kernels[level]
        _conv_norm_act(cost, before, width, kernel, g.voxels[level], input_grad=level > 0)
        _conv_norm_act(cost, width, width, kernel, g.voxels[level])
        before = width
    cost.saved += HALF * channels * g.voxels[0]
    return cost


def _fusion(g: Geometry, gate: int) -> PartCost:
    cost = PartCost()
    d, voxels = g.spec.detail_widths[gate], g.voxels[gate]
    cost.linear(g.spec.pyramid_width, d, voxels)
    cost.linear(2 * d, d, voxels)
    cost.saved = HALF * 3 * d * voxels  # both streams together, and the gate
    return cost


def _decoder(g: Geometry, skips: Sequence[int], widths: Sequence[int], heads: int) -> PartCost:
    cost = PartCost()
    for level in range(len(skips) - 1):
        below = skips[-1] if level == len(skips) - 2 else widths[level + 1]
        w, voxels = widths[level], g.voxels[level]
        cost.linear(below, 4 * w, g.voxels[level + 1])
        cost.parameters -= 3 * w  # one bias for all four places of the kernel
        cost.trained -= 3 * w
        _conv_norm_act(cost, w + skips[level], w, 9 * g.spec.depth_kernels[level], voxels)
        cost.saved += HALF * (w + skips[level]) * voxels  # the step's input
        if level < heads:
            cost.linear(w, g.classes, voxels)
    return cost


def _loss(classes: int, voxels: float) -> PartCost:
    """Cross-entropy and Dice of one output: two softmaxes and a one-hot target; labels as int64."""
    return PartCost(saved=voxels * (3 * FULL * classes + 8))


def stage_two(
    spec: NetworkSpec,
    patch: Sequence[int],
    *,
    batch: int,
    channels: int,
    classes: int,
    checkpointing: bool = False,
) -> StepCost:
    """A step of stage II: encoder frozen but for its updates and adapters, everything else learns.

    Args:
        spec: the network.
        patch: (D, H, W) or (H, W), voxels.
        batch: patches.
        channels: of the input, an earlier stage's segmentation included.
        classes: channels of the logits.
        checkpointing: blocks of the encoder are computed again in the backward pass.
    """
    g = Geometry.of(spec, patch, batch, channels, classes)
    gate = len(spec.detail_widths) - 1
    has_encoder, has_detail = "encoder" in spec.parts, "detail" in spec.parts
    skips = list(spec.detail_widths) if has_detail else [0] * (gate + 1)
    parts: dict[str, PartCost] = {}
    if has_encoder:
        parts["embedding"] = _embedding(g, trained=False)
        parts["encoder"] = _encoder(g, tuned=False, checkpointing=checkpointing)
        if "adapters" in spec.parts:
            parts["adapters"] = _adapters(g, checkpointing=checkpointing)
        parts["neck"] = _neck(g, gate)
        skips += [spec.pyramid_width] * (spec.levels - gate - 1)
        if has_detail:
            parts["fusion"] = _fusion(g, gate)
        else:
            skips[gate] = spec.pyramid_width
    if has_detail:
        parts["detail"] = _detail(g, channels)
    widths = [*spec.detail_widths, *[spec.pyramid_width] * spec.levels][: len(skips)]
    heads = min(spec.supervised_levels, len(skips) - 1)
    parts["decoder"] = _decoder(g, skips, widths, heads)
    supervised = sum(g.voxels[:heads])
    parts["loss"] = _loss(classes, supervised)
    proxy = (g.size.width + 1) * classes if has_encoder else 0
    # the fullest moment is either in the loss, or in the decoder's last step once the loss is done
    in_loss = FULL * classes * 2 * g.voxels[0]
    in_step = HALF * 3 * widths[0] * g.voxels[0] - parts["loss"].saved
    block = _block_passing(g, tuned=False, checkpointing=checkpointing) * has_encoder
    taps = FULL * len(g.taps) * g.size.width * g.slices * g.patches * has_encoder
    return StepCost(
        parts=parts,
        inputs=FULL * channels * g.voxels[0] + 2 * supervised,
        lifting=FULL * g.enlarged * has_encoder + 2 * taps,  # the taps, and together
        passing=max(in_loss, in_step),
        block=block,
        reentry=taps * (block > 0),
        resident=sum(part.parameters for part in parts.values()) + proxy,
    )


def stage_one(
    spec: NetworkSpec,
    patch: Sequence[int],
    *,
    slices: int,
    channels: int,
    classes: int,
    resident: int,
    batch: int = 0,
    checkpointing: bool = False,
) -> StepCost:
    """A step of stage I: the encoder and its linear head learn, on slices.

    Args:
        spec: the network.
        patch: (D, H, W) or (H, W), voxels.
        slices: in one step.
        channels: of the input.
        classes: channels of the logits.
        resident: parameters of the whole network, which is there too.
        batch: patches that the slices are drawn from, which stay in memory meanwhile.
        checkpointing: as for `stage_two`.
    """
    g = Geometry.of(spec, patch[-2:], slices, channels, classes)
    tokens = g.slices * g.patches
    head = PartCost()
    head.linear(g.size.width, classes, tokens)
    head.saved = g.size.width * (FULL * g.slices * g.tokens + HALF * tokens)
    parts = {
        "embedding": _embedding(g, trained=True),
        "encoder": _encoder(g, tuned=True, checkpointing=checkpointing),
        "head": head,
        "loss": _loss(classes, g.voxels[0]),
    }
    # autocast's copies of all blocks' weights, which only the forward pass keeps with checkpointing
    matrices = HALF * sum(i * o for i, o in g.size.block_linears) * g.taps[-1] * checkpointing
    branches = 2 if g.size.gated else 1
    running = 2 * FULL * g.size.width + HALF * (g.size.width + (branches + 1) * g.size.hidden)
    return StepCost(
        parts=parts,
        inputs=(FULL * spec.slices * g.channels + 2) * g.voxels[0]
        + (FULL * channels + 2) * batch * math.prod(patch),
        lifting=FULL * g.enlarged + g.slices * g.tokens * running + matrices,
        passing=FULL * classes * 2 * g.voxels[0],
        block=_block_passing(g, tuned=True, checkpointing=checkpointing),
        reentry=0.0,
        resident=resident,
    )


def prediction(spec: NetworkSpec, patch: Sequence[int], *, channels: int, classes: int) -> float:
    """Bytes at the fullest moment while one patch is predicted, weights included.

    What the host keeps of the whole volume (nnU-Net sums logits of all windows) comes on top.
    """
    g = Geometry.of(spec, patch, 1, channels, classes)
    step = stage_two(spec, patch, batch=1, channels=channels, classes=classes)
    weights = FULL * step.resident
    volume = FULL * channels * g.voxels[0]
    e, h, n, v = g.size.width, g.size.hidden, g.slices * g.tokens, g.voxels
    moments = []
    held = 0.0  # what waits for the decoder
    w = spec.pyramid_width
    gate = len(spec.detail_widths) - 1
    if "encoder" in spec.parts:
        branches = 2 if g.size.gated else 1
        lora = 3 if "lora" in spec.parts else 2  # the layer's own output, its update, their sum
        block = n * (10 * e + HALF * h * (lora + branches - 1))
        taps = FULL * n * e * len(g.taps)
        moments.append(FULL * g.enlarged + max(HALF * g.enlarged, block) + taps)
        moments.append(
            FULL * g.enlarged + taps * 2.5
        )  # the taps, and together, and in half precision
        held += HALF * w * sum(v[gate:])
    if "detail" in spec.parts:
        held += HALF * sum(d * x for d, x in zip(spec.detail_widths, v, strict=False))
        if "encoder" in spec.parts:
            held += HALF * spec.detail_widths[gate] * v[gate]
    skip = spec.detail_widths[0] if "detail" in spec.parts else 0
    first, below = [*spec.detail_widths, w][:2]
    last = HALF * (v[0] * (4 * first + skip) + below * v[1])
    moments.append(held + last)
    moments.append(held + HALF * (2 * first + g.classes) * v[0])
    return weights + volume + max(moments)
