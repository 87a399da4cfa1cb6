"""DINOv3 and DINOv2 as encoders: the published sizes, timm's numbers, Meta's and Hugging Face's."""

from __future__ import annotations

import re
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dinomed3d.lifting import MODELS, DinoEncoder, build_encoder, default_taps
from tests.dinomed3d.lifting.layouts import (
    ALL,
    V2,
    V2_GIANT,
    V2_PLAIN,
    V3,
    V3_PLUS,
    randomised,
    tiny,
)

# Millions of parameters, blocks and channels as published (DINOv3: arXiv:2508.10104; DINOv2:
# arXiv:2304.07193, with registers: arXiv:2309.16588).
PUBLISHED = {
    "vit_small_patch16_dinov3": (21.60, 12, 384),
    "vit_small_plus_patch16_dinov3": (28.70, 12, 384),
    "vit_base_patch16_dinov3": (85.67, 12, 768),
    "vit_large_patch16_dinov3": (303.15, 24, 1024),
    "vit_huge_plus_patch16_dinov3": (840.6, 32, 1280),
    "vit_7b_patch16_dinov3": (6716, 40, 4096),
    "vit_small_patch14_dinov2": (22.06, 12, 384),
    "vit_base_patch14_dinov2": (86.58, 12, 768),
    "vit_large_patch14_dinov2": (304.37, 24, 1024),
    "vit_giant_patch14_dinov2": (1136.5, 40, 1536),
    "vit_small_patch14_reg4_dinov2": (22.06, 12, 384),
    "vit_base_patch14_reg4_dinov2": (86.58, 12, 768),
    "vit_large_patch14_reg4_dinov2": (304.37, 24, 1024),
    "vit_giant_patch14_reg4_dinov2": (1136.5, 40, 1536),
}


def test_every_name_has_its_published_size():
    assert MODELS.keys() == PUBLISHED.keys()
    for name, (millions, depth, channels) in PUBLISHED.items():
        with torch.device("meta"):  # shapes only: the largest would need 27 GB
            encoder = build_encoder(name, weights="none")
        count = sum(p.numel() for p in encoder.parameters()) / 1e6
        assert count == pytest.approx(millions, rel=5e-4), name
        assert (encoder.depth, encoder.channels) == (depth, channels)
        assert encoder.stride == (16 if "patch16" in name else 14)
        registers = 0 if "patch14_dinov2" in name else 4
        assert encoder.vit.num_prefix_tokens == 1 + registers


@pytest.mark.parametrize("name", MODELS)
def test_every_name_encodes_at_a_tiny_size(name):
    encoder = tiny(name)
    first, last = encoder(torch.randn(2, 3, 40, 60))
    stride = encoder.stride
    assert first.values.shape == last.values.shape == (2, 24, -(-40 // stride), -(-60 // stride))
    assert not torch.equal(first.values, last.values)


@pytest.mark.parametrize(
    ("depth", "taps"),
    [
        (12, (2, 5, 8, 11)),
        (24, (5, 11, 17, 23)),
        (32, (7, 15, 23, 31)),
        (40, (9, 19, 29, 39)),
        (4, (0, 1, 2, 3)),
        (3, (0, 1, 2)),
        (1, (0,)),
    ],
)
def test_default_taps(depth, taps):
    assert default_taps(depth) == taps


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_maps_are_those_of_timm(name, norm):
    encoder = randomised(name, depth=3, taps=(0, 2), norm=norm)
    height, width = 3 * encoder.stride, 5 * encoder.stride
    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        wanted = encoder.vit.forward_intermediates(
            images, indices=[0, 2], norm=norm, output_fmt="NCHW", intermediates_only=True
        )
    for tap, timms in zip(encoder(images), wanted, strict=True):
        torch.testing.assert_close(tap.values, timms, atol=1e-5, rtol=1e-5)


# --- DINOv2's learned table of positions, 37 x 37 for images of 518 pixels


@pytest.mark.parametrize("size", [(518, 518), (56, 56), (98, 140), (546, 42)])
@pytest.mark.parametrize("name", [V2, V2_PLAIN])
def test_images_of_other_sizes_than_in_pretraining_are_encoded_as_by_timm(name, size):
    encoder = randomised(name, img_size=518)
    images = torch.randn(1, 3, *size)
    with torch.no_grad():
        wanted = encoder.vit.forward_features(images)[:, encoder.vit.num_prefix_tokens :]
    found = encoder(images)[-1].values
    assert found.shape[-2:] == (size[0] // 14, size[1] // 14)
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), wanted, atol=1e-5, rtol=1e-5)


def test_images_of_the_pretraining_size_get_the_table_itself():
    encoder = randomised(V2_PLAIN, img_size=518)
    torch.nn.init.zeros_(encoder.vit.patch_embed.proj.weight)
    torch.nn.init.zeros_(encoder.vit.patch_embed.proj.bias)
    tokens, _ = encoder.embed(torch.randn(1, 3, 518, 518))
    class_token = encoder.vit.cls_token + encoder.vit.pos_embed[:, :1]
    assert torch.equal(tokens, torch.cat([class_token, encoder.vit.pos_embed[:, 1:]], dim=1))


@pytest.mark.parametrize("name", [V2, V2_PLAIN])
@pytest.mark.parametrize("rows", [9, 16, 64])
def test_positions_between_those_of_the_table_lie_at_the_centres_of_patches(name, rows):
    """A table that counts its rows, read at h rows: row i's centre is at (i + 1/2) 37 / h - 1/2."""
    encoder = tiny(name, img_size=518)
    table = torch.zeros(37, 37, 24)
    table[:, :, 0] = torch.arange(37.0)[:, None]
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        encoder.vit.pos_embed[0, -37 * 37 :] = table.flatten(0, 1)
    prefix = encoder.vit.num_prefix_tokens
    tokens, _ = encoder.embed(torch.zeros(1, 3, 14 * rows, 28))
    found = tokens[0, prefix:, 0].reshape(rows, 2)
    wanted = (torch.arange(rows) + 0.5) * 37 / rows - 0.5
    inside = slice(2, -2) if rows <= 37 else slice(4, -4)  # the kernel ends at the table's edge
    torch.testing.assert_close(found[inside, 1], wanted[inside], atol=5e-3, rtol=0)
    assert not tokens[0, :prefix].any()  # class token and registers have no place in the image


def test_a_coarser_table_of_positions_is_smoothed_before_it_is_sampled():
    encoder = tiny(V2_PLAIN, img_size=518)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        encoder.vit.pos_embed[0, 1::2] = 1  # a chess board of 37 x 37 fields: a half, smoothed
    tokens, _ = encoder.embed(torch.zeros(1, 3, 12 * 14, 12 * 14))
    inside = tokens[0, 1:, 0].reshape(12, 12)[2:-2, 2:-2]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.5), atol=0.01, rtol=0)


# --- the parts of a block


@pytest.mark.parametrize("name", ALL)
def test_both_halves_of_a_block_are_the_block(name):
    encoder = randomised(name)
    tokens, rope = encoder.embed(torch.randn(1, 3, 2 * encoder.stride, 3 * encoder.stride))
    assert tokens.shape == (1, (1 if name == V2_PLAIN else 5) + 6, 24)
    block = encoder.vit.blocks[1]
    whole = block(tokens) if rope is None else block(tokens, rope=rope)
    halves = encoder.mlp_half(1, encoder.attention_half(1, tokens, rope))
    torch.testing.assert_close(halves, whole, atol=1e-5, rtol=1e-5)


def test_the_map_lies_as_the_image_does(tiny_encoder):
    tokens = torch.zeros(1, 5 + 6, 24)
    tokens[0, 5:, 0] = torch.arange(6.0)  # row by row
    tokens[0, :5, 0] = 99  # cls and registers
    tiny_encoder.norm = False
    assert tiny_encoder.to_map(tokens, 32, 48)[0, 0].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_blocks_after_the_last_tap_are_not_run(tiny_encoder, monkeypatch):
    encoder = DinoEncoder(tiny_encoder.vit, taps=(1,), norm=False)
    run, half = [], encoder.mlp_half
    monkeypatch.setattr(encoder, "mlp_half", lambda block, t: run.append(block) or half(block, t))
    encoder(torch.ones(1, 3, 16, 16))
    assert run == [0, 1]


@pytest.mark.parametrize("name", [V3, V2])
def test_stochastic_depth_acts_in_training_only(name):
    torch.manual_seed(0)
    encoder = randomised(name, drop_path_rate=0.9, taps=(1,), frozen=False)
    images = torch.randn(64, 3, encoder.stride, encoder.stride)
    still = encoder.eval()(images)[0].values
    assert torch.equal(still, encoder(images)[0].values)
    encoder.train()
    assert not torch.equal(encoder(images)[0].values, encoder(images)[0].values)
    assert torch.equal(still, encoder.freeze().train()(images)[0].values)


@pytest.mark.parametrize("in_chans", [1, 5])
def test_images_of_other_channel_counts(in_chans):
    encoder = tiny(V3, in_chans=in_chans)
    assert encoder(torch.randn(1, in_chans, 16, 16))[0].values.shape == (1, 24, 1, 1)
    with pytest.raises(ValueError, match=rf"must be \(V, {in_chans}, H, W\)"):
        encoder(torch.randn(1, 3, 16, 16))


# --- parity with the implementations that published checkpoints come from

GOLDEN = dict(embed_dim=96, depth=4, num_heads=3)


def test_meta_reference(shared):
    folder = shared / "golden" / "dinov3_mlp"
    io = {key: torch.from_numpy(value) for key, value in np.load(folder / "io.npz").items()}
    weights = folder / "meta_checkpoint.pth"
    raw = build_encoder(V3, weights=weights, taps=(0, 1, 2, 3), norm=False, **GOLDEN)
    for block, tap in enumerate(raw(io["x"])):
        torch.testing.assert_close(tap.values, io[f"block{block}"], atol=1e-5, rtol=0)

    normed = build_encoder(V3, weights=weights, taps=(1, 3), norm=True, **GOLDEN)
    last = normed(io["x"])[-1].values.flatten(2).transpose(1, 2)
    torch.testing.assert_close(last, io["x_norm_patchtokens"], atol=1e-5, rtol=0)
    for block, tap in zip((1, 3), normed(io["x2"]), strict=True):
        torch.testing.assert_close(tap.values, io[f"normed_block{block}_x2"], atol=1e-5, rtol=0)


def all_tokens(encoder, images):
    """Class token, registers and patches after the last block and the final norm."""
    with torch.no_grad():
        tokens, rope = encoder.embed(images)
        for block in range(encoder.depth):
            tokens = encoder.mlp_half(block, encoder.attention_half(block, tokens, rope))
        return encoder.vit.norm(tokens)


def test_meta_reference_class_token(shared):
    folder = shared / "golden" / "dinov3_mlp"
    io = np.load(folder / "io.npz")
    encoder = build_encoder(V3, weights=folder, **GOLDEN)
    tokens = all_tokens(encoder, torch.from_numpy(io["x"]))
    wanted = torch.from_numpy(io["x_norm_clstoken"])
    torch.testing.assert_close(tokens[:, 0], wanted, atol=1e-5, rtol=0)


def test_hugging_face_reference(shared):
    folder = shared / "golden" / "dinov3_hf_mlp"
    io = np.load(folder / "io.npz")
    encoder = build_encoder(V3, weights=folder, **GOLDEN)
    tokens = all_tokens(encoder, torch.from_numpy(io["x"]))
    wanted = torch.from_numpy(io["last_hidden_state"])
    torch.testing.assert_close(tokens, wanted, atol=1e-5, rtol=0)


# --- the memory estimate


class PeakMemory(TorchDispatchMode):
    """Counts the bytes of all tensors alive at a time, but for those it is given."""

    def __init__(self, known) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in known}
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                key = storage._cdata
                if key not in self.known and key not in self.alive:
                    self.alive[key] = storage.nbytes()
                    weakref.finalize(storage, self.alive.pop, key, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return result


@pytest.mark.parametrize("mlp_ratio", [None, 1.0])
@pytest.mark.parametrize("taps", [(3,), (0, 1, 2, 3)])
@pytest.mark.parametrize("name", [V3, V3_PLUS, V2, V2_PLAIN, V2_GIANT])
def test_the_memory_estimate_is_a_bound_and_not_a_loose_one(name, taps, mlp_ratio):
    encoder = build_encoder(
        name, weights="none", embed_dim=48, depth=4, num_heads=3, taps=taps, mlp_ratio=mlp_ratio
    )
    side = 8 * encoder.stride
    images = torch.randn(4, 3, side, side)
    with (
        torch.no_grad(),
        PeakMemory([images, *encoder.parameters(), *encoder.buffers()]) as memory,
    ):
        encoder.maps(images)
    estimate = 4 * encoder.bytes_per_image(side, side)
    assert 0.6 * estimate < memory.peak <= estimate


# --- bad input


def test_unknown_name():
    with pytest.raises(ValueError, match=r"'name': .*'resnet50'; .* one of .*_dinov3"):
        build_encoder("resnet50", weights="none")
    meant = "did you mean vit_small_patch14_dinov2?; it must"  # before the long list
    with pytest.raises(ValueError, match=re.escape(meant)):
        build_encoder("vit_smal_patch14_dinov2", weights="none")


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (dict(no_such_thing=1), "no_such_thing"),
        (dict(num_classes=3), "num_classes"),
        (dict(dynamic_img_size=False), "dynamic_img_size"),
        (dict(embed_dim="large"), "large"),
        (dict(embed_dim=-24), "-24"),
        (dict(num_heads=0), "'num_heads': 0"),
        (dict(num_heads=5), "24 channels .* 5 heads"),
        (dict(embed_dim=12), "12 channels .* 2 heads"),  # six channels: no rotary positions
        (dict(depth=0), "'depth': 0"),
        (dict(depth=-1), "'depth': -1"),
        (dict(patch_size=0), "'patch_size': 0"),
        (dict(patch_size=(16, 8)), "square"),
    ],
)
def test_overrides_that_do_not_fit(overrides, why):
    with pytest.raises(ValueError, match=rf"overrides .* do not fit {V3}") as error:
        tiny(V3, **overrides)
    assert error.match(why)


def test_overrides_that_do_not_fit_dinov2():
    with pytest.raises(ValueError, match=f"do not fit {V2}"):
        tiny(V2, num_heads=5)


@pytest.mark.parametrize("taps", [(1, 0), (0, 0), (0, 2), (-1, 1), ()])
def test_taps_that_are_not_increasing_block_numbers(taps):
    with pytest.raises(ValueError, match="'taps' must be increasing .* from 0 to 1, got"):
        tiny(V3, taps=taps)


def test_the_summary_is_the_class_token_and_costs_no_second_pass(monkeypatch):
    encoder = build_encoder(
        "vit_small_patch16_dinov3", weights="none", embed_dim=24, depth=2, num_heads=2, norm=True
    )
    images = torch.randn(3, 3, 40, 33)
    runs = []
    whole = type(encoder)._run
    monkeypatch.setattr(
        type(encoder), "_run", lambda self, x: (runs.append(len(x)), whole(self, x))[1]
    )
    maps, summary = encoder.forward_with_cls(images)
    assert sum(runs) == 3
    assert summary.shape == (3, 24)
    padded = torch.nn.functional.pad(images, (0, 15, 0, 8), mode="replicate")
    expected = encoder.vit.forward_features(padded)[:, 0]
    torch.testing.assert_close(summary, expected, atol=1e-5, rtol=1e-5)
    for one, two in zip(maps, encoder(images), strict=True):
        assert torch.equal(one.values, two.values)
        assert (one.stride, one.image_size) == (two.stride, two.image_size)
