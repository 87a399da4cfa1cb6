"""DINOv3 and DINOv2 vision transformers, through timm, as encoders of the lifting core."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from dinomed3d.lifting.encoder import Encoder
from dinomed3d.lifting.weights import load_weights
from dinomed3d.runtime.commands.library_warnings import importing_timm
from dinomed3d.runtime.messages.suggestion import suggestion

with importing_timm():
    import timm

# Our name -> the timm model that holds every weight of the published files. timm's plain DINOv3
# models have no query and value biases and would drop them; the `_qkvb` ones have them. The 7B
# model has no such biases.
MODELS: Mapping[str, str] = {
    "vit_small_patch16_dinov3": "vit_small_patch16_dinov3_qkvb",
    "vit_small_plus_patch16_dinov3": "vit_small_plus_patch16_dinov3_qkvb",
    "vit_base_patch16_dinov3": "vit_base_patch16_dinov3_qkvb",
    "vit_large_patch16_dinov3": "vit_large_patch16_dinov3_qkvb",
    "vit_huge_plus_patch16_dinov3": "vit_huge_plus_patch16_dinov3_qkvb",
    "vit_7b_patch16_dinov3": "vit_7b_patch16_dinov3",
    "vit_small_patch14_dinov2": "vit_small_patch14_dinov2",
    "vit_base_patch14_dinov2": "vit_base_patch14_dinov2",
    "vit_large_patch14_dinov2": "vit_large_patch14_dinov2",
    "vit_giant_patch14_dinov2": "vit_giant_patch14_dinov2",
    "vit_small_patch14_reg4_dinov2": "vit_small_patch14_reg4_dinov2",
    "vit_base_patch14_reg4_dinov2": "vit_base_patch14_reg4_dinov2",
    "vit_large_patch14_reg4_dinov2": "vit_large_patch14_reg4_dinov2",
    "vit_giant_patch14_reg4_dinov2": "vit_giant_patch14_reg4_dinov2",
}
DEFAULT_ENCODER = "vit_small_patch16_dinov3"
"""The encoder where none is named: the smallest of DINOv3."""
OPEN_ENCODER = "vit_small_patch14_dinov2"
"""An encoder whose weights need no licence and no account: the smallest of DINOv2 (Apache-2.0)."""
LVD_MEAN = (0.485, 0.456, 0.406)
"""Channel means of the images that the LVD weights were trained on (values 0 to 1)."""
LVD_STD = (0.229, 0.224, 0.225)
"""Channel standard deviations of the same images."""


def default_taps(depth: int) -> tuple[int, ...]:
    """Four evenly spaced blocks, the last among them: (2, 5, 8, 11) of 12, or fewer of few."""
    return tuple(sorted({max(0, depth * (i + 1) // 4 - 1) for i in range(4)}))


class DinoEncoder(Encoder):
    """A timm DINOv3 (`Eva`) or DINOv2 (`VisionTransformer`) model as an encoder.

    Its blocks are exposed in halves (`attention_half`, `mlp_half`), so that a caller can insert a
    module between attention and MLP without copying the network; `maps` uses the same halves.
    """

    vit: Any  # timm's models have no common type with what is read from them here
    checkpointing: bool
    """Activation checkpointing: a block keeps only its input and is recomputed in the backward pass."""

    def __init__(
        self, vit: nn.Module, *, taps: tuple[int, ...], norm: bool, **settings: Any
    ) -> None:
        """Wrap a timm model.

        Args:
            vit: the model; its classification head is not used.
            taps: blocks whose output is returned, 0-based, increasing.
            norm: see `build_encoder`.
            settings: `chunk_mib` and `precision` of Encoder.
        """
        super().__init__(**settings)
        self.vit = vit
        depth = self.depth
        if not taps or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < depth:
            raise ValueError(
                f"DinoEncoder: 'taps' must be increasing block numbers from 0 to {depth - 1}, "
                f"got {taps}"
            )
        self.taps = tuple(taps)
        self.norm = norm
        self.checkpointing = False
        self.stride = self.vit.patch_embed.patch_size[0]
        self.channels = self.vit.embed_dim
        self.in_channels = self.vit.patch_embed.proj.in_channels
        # Hidden width of an MLP; of a gated one gate and value together, whether packed or not.
        self.hidden = sum(
            layer.out_features
            for name, layer in self.vit.blocks[0].mlp.named_children()
            if name.startswith("fc1")
        )

    @property
    def depth(self) -> int:
        """Number of transformer blocks."""
        return len(self.vit.blocks)

    @property
    def run_blocks(self) -> int:
        """Number of blocks that are run: those after the last tap are not."""
        return self.taps[-1] + 1

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Tokens before the first block, and their rotary position embedding where there is one.

        DINOv2's table of positions, 37 x 37 for images of 518 pixels, is read between its entries
        for other sizes as timm does it: bicubic, with antialiasing, the outer edges of both grids on
        each other. Meta's own code for DINOv2 without registers leaves antialiasing out and moves the
        grid by a tenth of a patch, so that tokens differ a little at sizes other than 518.

        Args:
            images: (V, C, H, W), C the input channels of the patch embedding: 3, or K * modalities once
                it is inflated; sides multiples of the stride.

        Returns:
            (V, P + h * w, E): prefix tokens (cls, registers if there are), then patches row by row; rope or
            None.
        """
        embedded = self.vit._pos_embed(self.vit.patch_embed(images))
        return embedded if isinstance(embedded, tuple) else (embedded, None)

    def attention_half(self, block: int, tokens: Tensor, rope: Tensor | None) -> Tensor:
        """First half of a block: tokens plus their attention. (V, N, C) -> (V, N, C)."""
        b = self.vit.blocks[block]
        if hasattr(b, "ls1"):  # timm's VisionTransformer
            return tokens + b.drop_path1(b.ls1(b.attn(b.norm1(tokens))))
        return tokens + b.drop_path1(b.gamma_1 * b.attn(b.norm1(tokens), rope=rope))

    def mlp_half(self, block: int, tokens: Tensor) -> Tensor:
        """Second half of a block: tokens plus their MLP. (V, N, C) -> (V, N, C)."""
        b = self.vit.blocks[block]
        if hasattr(b, "ls2"):
            return tokens + b.drop_path2(b.ls2(b.mlp(b.norm2(tokens))))
        return tokens + b.drop_path2(b.gamma_2 * b.mlp(b.norm2(tokens)))

    def block(self, number: int, tokens: Tensor, rope: Tensor | None) -> Tensor:
        """Both halves of a block. (V, N, C) -> (V, N, C)."""
        return self.mlp_half(number, self.attention_half(number, tokens, rope))

    def checkpointed(self, block: Callable[..., Tensor], *inputs: Any) -> Tensor:
        """Run a block, or a function around one, with activation checkpointing if `checkpointing` is set.

        Args:
            block: the function.
            inputs: its arguments, tensors or not.
        """
        if self.checkpointing and torch.is_grad_enabled():
            output: Tensor = checkpoint(block, *inputs, use_reentrant=False)
            return output
        return block(*inputs)

    def to_map(self, tokens: Tensor, height: int, width: int) -> Tensor:
        """Patch tokens as a map, after the final norm if `norm`. (V, P + N, C) -> (V, C, h, w).

        Args:
            tokens: (V, P + h * w, C) after a block.
            height: of the images, pixels, a multiple of the stride.
            width: of the images, pixels, a multiple of the stride.
        """
        tokens = self.vit.norm(tokens) if self.norm else tokens
        patches = tokens[:, self.vit.num_prefix_tokens :]
        return patches.transpose(1, 2).unflatten(2, (height // self.stride, width // self.stride))

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Encoder.maps; blocks after the last tap are not run."""
        return self._run(images)[0]

    def maps_and_cls_token(self, images: Tensor) -> tuple[Tensor, ...]:
        """See Encoder.maps_and_cls_token; class tokens after the last tap and the final norm."""
        maps, tokens = self._run(images)
        return (*maps, self.vit.norm(tokens[:, :1])[:, 0])

    def _run(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor]:
        """The maps of all taps, and the tokens after the last tap."""
        tokens, rope = self.embed(images)
        outputs = []
        for number in range(self.run_blocks):
            tokens = self.checkpointed(self.block, number, tokens, rope)
            if number in self.taps:
                outputs.append(self.to_map(tokens, images.shape[-2], images.shape[-1]))
        return tuple(outputs), tokens

    def bytes_per_image(self, height: int, width: int) -> int:
        """See Encoder.bytes_per_image: the taps and a block's widest point, attention or hidden layer."""
        tokens = (height // self.stride) * (width // self.stride) + self.vit.num_prefix_tokens
        # Attention: tokens, their norm, qkv, and queries and keys once more as they are rotated.
        # MLP: tokens, their norm, the hidden layer before and after its activation.
        block = max(9 * self.channels, 3 * self.channels + 2 * self.hidden)
        return 4 * tokens * (block + len(self.taps) * self.channels)


def build_encoder(
    name: str,
    *,
    weights: str | os.PathLike[str],
    taps: tuple[int, ...] | None = None,
    norm: bool = True,
    frozen: bool = True,
    chunk_mib: float = 1024.0,
    precision: torch.dtype | None = None,
    **overrides: Any,
) -> DinoEncoder:
    """Build a DINOv3 or DINOv2 encoder and load its weights.

    Args:
        name: one of MODELS, for example "vit_small_patch16_dinov3".
        weights: a file (Meta, Hugging Face, timm or our own layout), a directory with one, "hub"
            (downloaded through the Hugging Face hub), or "none" (random: tests and demos only).
        taps: blocks whose output is returned, 0-based, increasing; None for `default_taps`.
        norm: apply the final layer norm to every tap, as Meta's and Hugging Face's APIs do; off
            returns raw block outputs, as DINO-Med3D's released code reads them.
        frozen: no gradients, and eval mode permanently; off for training.
        chunk_mib: see `Encoder`.
        precision: torch.bfloat16 or torch.float16 for autocast, None for the weights' own.
        overrides: timm's arguments for another size: embed_dim, depth, num_heads, mlp_ratio,
            init_values (LayerScale), swiglu_mlp, img_size, ...

    Returns:
        The encoder, on the CPU.

    Raises:
        ValueError: unknown name or override.
        WeightsError: weights are missing, cannot be read or do not match the model in every key.
    """
    if name not in MODELS:
        raise ValueError(
            f"build_encoder: 'name': there is no {name!r}{suggestion([name], MODELS)}; it must be one of "
            f"{', '.join(MODELS)}"
        )
    try:
        vit: Any = timm.create_model(
            MODELS[name], pretrained=False, num_classes=0, dynamic_img_size=True, **overrides
        )
        _check_sizes(vit)
    except (TypeError, ValueError, AssertionError, ArithmeticError, RuntimeError) as error:
        raise ValueError(
            f"build_encoder: overrides {overrides} do not fit {name}: {error}"
        ) from error
    encoder = DinoEncoder(
        vit,
        taps=default_taps(len(vit.blocks)) if taps is None else tuple(taps),
        norm=norm,
        chunk_mib=chunk_mib,
        precision=precision,
    )
    if str(weights) != "none":
        load_weights(vit, weights, hub_repository=hub_repository(name))
    if frozen:
        encoder.freeze()
    return encoder


def _check_sizes(vit: Any) -> None:
    """Refuse sizes that timm builds without an error, although the model cannot run."""
    if len(vit.blocks) < 1:
        raise ValueError("there must be at least one block")
    heads, channels = vit.blocks[0].attn.num_heads, vit.embed_dim
    step = 4 if getattr(vit, "rope", None) is not None else 1  # rotary: sine, cosine of two axes
    if channels % (step * heads):
        raise ValueError(f"{channels} channels are no multiple of {step} for each of {heads} heads")
    height, width = vit.patch_embed.patch_size
    if height != width:
        raise ValueError(f"patches must be square, got {height} x {width}")


def hub_repository(name: str) -> str:
    """Repository on the Hugging Face hub from which `weights="hub"` takes an encoder of MODELS."""
    pretraining = "lvd1689m" if "dinov3" in name else "lvd142m"  # timm's tag of the training images
    return f"timm/{MODELS[name]}.{pretraining}"


def patch_of(name: str) -> int:
    """Side of the patches of an encoder of MODELS, pixels."""
    found = re.search(r"_patch(\d+)_", name)
    assert found is not None  # every name has it
    return int(found[1])


def needs_licence(name: str) -> bool:
    """Whether an encoder's weights may be used only under Meta's DINOv3 License; DINOv2's are Apache-2.0."""
    return "dinov3" in name
