"""Checkpoints in the layouts that are found in the wild, written from timm models by renaming.

Written apart from what reads them: the tables below are those of Meta's and Hugging Face's own
model definitions.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dinomed3d.lifting import DinoEncoder, build_encoder

V3, V3_PLUS, V3_7B = (
    "vit_small_patch16_dinov3",
    "vit_small_plus_patch16_dinov3",
    "vit_7b_patch16_dinov3",
)
V2, V2_GIANT = "vit_small_patch14_reg4_dinov2", "vit_giant_patch14_reg4_dinov2"
V2_PLAIN = "vit_small_patch14_dinov2"
"""Without registers: timm keeps the class token's position apart, as Meta does."""
ALL = (V3, V3_PLUS, V3_7B, V2, V2_PLAIN, V2_GIANT)

State = dict[str, Tensor]


def tiny(name: str, *, weights: object = "none", **overrides: object) -> DinoEncoder:
    """One of MODELS with two blocks of 24 channels."""
    sizes = dict(embed_dim=24, depth=2, num_heads=2, init_values=1.0)
    if "dinov2" in name:
        sizes["img_size"] = 56  # 4 x 4 stored positions
    return build_encoder(name, weights=weights, **(sizes | overrides))


def randomised(name: str, *, seed: int = 0, **overrides: object) -> DinoEncoder:
    """As `tiny`, with no parameter left at zero or one, so that every one of them counts."""
    encoder = tiny(name, **overrides)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return encoder


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(99))


def rename(state: State, table: list[tuple[str, str]]) -> State:
    """Apply all replacements to all keys."""
    out = {}
    for key, value in state.items():
        for old, new in table:
            key = key.replace(old, new)
        out[key] = value
    return out


def as_timm(vit: nn.Module) -> State:
    return {key: value.clone() for key, value in vit.state_dict().items()}


def as_meta(vit: nn.Module) -> State:
    """The layout of the `.pth` files of facebookresearch/dinov3 and /dinov2."""
    state = as_timm(vit)
    dim = vit.embed_dim
    if "pos_embed" in state:
        if "reg_token" in state:
            # One position more, the class token's; timm has the sum of both in its class token.
            position = noise(1, 1, dim)
            state["cls_token"] -= position
            state["pos_embed"] = torch.cat([position, state["pos_embed"]], dim=1)
        table = [("reg_token", "register_tokens")]
        if vit.blocks[0].mlp.fc1.out_features != vit.blocks[0].mlp.fc2.in_features:
            table += [("mlp.fc1", "mlp.w12"), ("mlp.fc2", "mlp.w3")]
        return {"mask_token": noise(1, dim)} | rename(state, table)
    for block in range(len(vit.blocks)):
        name = f"blocks.{block}.attn."
        if f"{name}q_bias" in state:
            # All three are stored; the key's third is whatever it was, and masked.
            query, value = state.pop(f"{name}q_bias"), state.pop(f"{name}v_bias")
            state[f"{name}qkv.bias"] = torch.cat([query, noise(dim), value])
            mask = torch.ones(3 * dim)
            mask[dim : 2 * dim] = 0
            state[f"{name}qkv.bias_mask"] = mask
    gated = "blocks.0.mlp.fc1_g.weight" in state
    table = [("reg_token", "storage_tokens"), ("gamma_1", "ls1.gamma"), ("gamma_2", "ls2.gamma")]
    if gated:
        table += [("mlp.fc1_g", "mlp.w1"), ("mlp.fc1_x", "mlp.w2"), ("mlp.fc2", "mlp.w3")]
    head = dim // vit.blocks[0].attn.num_heads
    extra = {
        "mask_token": noise(1, dim),
        "rope_embed.periods": 100 ** (torch.arange(head // 4) / (head // 4)),
        "local_cls_norm.weight": noise(dim),
        "local_cls_norm.bias": noise(dim),
    }
    return extra | rename(state, table)


def as_hugging_face(vit: nn.Module, *, blocks: str = "layer.") -> State:
    """The layout of transformers; `blocks` is `layer.` (4.x) or `model.layer.` (5.x)."""
    meta = as_meta(vit)
    old = "pos_embed" in meta  # DINOv2
    blocks = "encoder.layer." if old else blocks
    out = {}
    for key, value in meta.items():
        if key.startswith(("rope_embed", "local_cls_norm")) or key.endswith("bias_mask"):
            continue
        if ".attn.qkv." in key:
            name, kind = key.split("attn.qkv.")
            for part, third in zip("qkv", value.chunk(3), strict=True):
                if part == "k" and kind == "bias" and not old:
                    continue  # there is none in DINOv3
                long = {"q": "query", "k": "key", "v": "value"}[part]
                where = f"attention.attention.{long}." if old else f"attention.{part}_proj."
                out[f"{name}{where}{kind}"] = third.clone()
        else:
            out[key] = value[:, None] if key == "mask_token" and not old else value
    if old:
        table = [
            ("register_tokens", "embeddings.register_tokens"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("attn.proj", "attention.output.dense"),
            ("mlp.w12", "mlp.weights_in"),
            ("mlp.w3", "mlp.weights_out"),
        ]
    else:
        table = [
            ("storage_tokens", "embeddings.register_tokens"),
            ("patch_embed.proj", "embeddings.patch_embeddings"),
            ("attn.proj", "attention.o_proj"),
        ]
        if "blocks.0.mlp.w1.weight" in meta:
            names = ("w1", "gate_proj"), ("w2", "up_proj"), ("w3", "down_proj")
        else:
            names = ("fc1", "up_proj"), ("fc2", "down_proj")
        table += [(f"mlp.{meta_name}", f"mlp.{name}") for meta_name, name in names]
    table += [
        ("cls_token", "embeddings.cls_token"),
        ("mask_token", "embeddings.mask_token"),
        ("ls1.gamma", "layer_scale1.lambda1"),
        ("ls2.gamma", "layer_scale2.lambda1"),
        ("blocks.", blocks),
    ]
    if old:
        out = {"layernorm." + k[5:] if k.startswith("norm.") else k: v for k, v in out.items()}
    return rename(out, table)
