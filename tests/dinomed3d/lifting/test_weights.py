"""Foreign checkpoints: every layout, every wrapper, every key; and everything that is refused."""

from __future__ import annotations

import json
import logging
import re

import huggingface_hub
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.models import eva, vision_transformer

from dinomed3d.lifting import MODELS, WeightsError, build_encoder, find_weights, load_weights
from dinomed3d.lifting.dino import OPEN_ENCODER, hub_repository, needs_licence
from dinomed3d.lifting.weights import HubError
from tests.dinomed3d.lifting.layouts import (
    ALL,
    V2,
    V2_GIANT,
    V2_PLAIN,
    V3,
    V3_7B,
    V3_PLUS,
    as_hugging_face,
    as_meta,
    as_timm,
    noise,
    randomised,
    tiny,
)


def write(path, state):
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def prefixed(prefix, state):
    return {prefix + key: value for key, value in state.items()}


def assert_same(encoder, other):
    """Both hold the same tensors under the same names, bit for bit."""
    ours, theirs = encoder.vit.state_dict(), other.vit.state_dict()
    assert ours.keys() == theirs.keys()
    different = [key for key in ours if not torch.equal(ours[key], theirs[key])]
    assert not different


# --- layouts

LAYOUTS = {
    "timm.safetensors": as_timm,
    "meta.pth": as_meta,
    "hugging_face_4.safetensors": as_hugging_face,
    "hugging_face_5.safetensors": lambda vit: as_hugging_face(vit, blocks="model.layer."),
}


@pytest.mark.parametrize("file", LAYOUTS)
@pytest.mark.parametrize("name", ALL)
def test_every_layout_is_loaded_to_the_last_tensor(name, file, tmp_path):
    source = randomised(name)
    path = write(tmp_path / file, LAYOUTS[file](source.vit))
    loaded = tiny(name, weights=path)
    registers = "reg_token" in source.vit.state_dict()
    if "dinov2" in name and registers and file != "timm.safetensors":
        # cls token = (token - position) + position
        before, after = source.vit.cls_token.data, loaded.vit.cls_token.data
        torch.testing.assert_close(after, before, atol=1e-6, rtol=0)
        after.copy_(before)
    assert_same(loaded, source)


@pytest.mark.parametrize("img_size", [28, 42])
@pytest.mark.parametrize("layout", [as_timm, as_meta])
@pytest.mark.parametrize("name", [V2, V2_PLAIN])
def test_stored_positions_even_and_odd(name, layout, img_size, tmp_path):
    source = randomised(name, img_size=img_size)  # 4 or 9 positions, with the class token's 5 or 10
    path = write(tmp_path / "w.pth", layout(source.vit))
    loaded = tiny(name, weights=path, img_size=img_size)
    images = torch.randn(1, 3, 28, 42)
    for a, b in zip(loaded(images), source(images), strict=True):
        torch.testing.assert_close(a.values, b.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_meta_files_are_read_as_timm_reads_them(name, tmp_path):
    source = randomised(name)
    path = write(tmp_path / "meta.pth", as_meta(source.vit))
    loaded, reference = tiny(name, weights=path), tiny(name)
    read = (vision_transformer if "dinov2" in name else eva).checkpoint_filter_fn
    state = read(torch.load(path, weights_only=True), reference.vit)
    reference.vit.load_state_dict(state, strict=True)
    assert_same(loaded, reference)


def linear(state, name):
    return lambda x: F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


@pytest.mark.parametrize(
    ("name", "layout", "block", "layers"),
    [
        (V3_PLUS, as_meta, "blocks.1.mlp", ("w1", "w2", "w3")),
        (V3_PLUS, as_hugging_face, "layer.1.mlp", ("gate_proj", "up_proj", "down_proj")),
        (V2_GIANT, as_meta, "blocks.1.mlp", ("w12", "w3")),
    ],
)
def test_a_gated_mlp_by_its_formula(name, layout, block, layers, tmp_path):
    state = layout(randomised(name).vit)
    encoder = tiny(name, weights=write(tmp_path / "w.pth", state))
    *first, last = (linear(state, f"{block}.{layer}") for layer in layers)
    x = noise(2, 7, 24)
    gate, value = torch.cat([layer(x) for layer in first], dim=-1).chunk(2, dim=-1)
    wanted = last(F.silu(gate) * value)
    torch.testing.assert_close(encoder.vit.blocks[1].mlp(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("blocks", ["layer.", "model.layer."])
def test_hugging_face_reference_in_both_nestings(shared, blocks, tmp_path):
    folder = shared / "golden" / "dinov3_hf_mlp"
    sizes = dict(embed_dim=96, depth=4, num_heads=3)
    plain = build_encoder(V3, weights=folder / "model.safetensors", **sizes)
    state = {
        key.removeprefix("model.").replace("layer.", blocks, 1) if "layer." in key else key: value
        for key, value in load_file(folder / "model.safetensors").items()
    }
    assert sum(key.startswith(blocks) for key in state) == 4 * 17
    nested = build_encoder(V3, weights=write(tmp_path / "w.safetensors", state), **sizes)
    assert_same(nested, plain)


def test_half_precision_files_are_read_in_the_models_precision(tmp_path):
    source = randomised(V3)
    state = {key: value.half() for key, value in as_meta(source.vit).items()}
    loaded = tiny(V3, weights=write(tmp_path / "meta.pth", state))
    assert loaded.vit.norm.weight.dtype == torch.float32
    assert torch.equal(loaded.vit.norm.weight, source.vit.norm.weight.half().float())


def without_biases(encoder):
    for block in encoder.vit.blocks:
        torch.nn.init.zeros_(block.attn.q_bias)
        torch.nn.init.zeros_(block.attn.v_bias)
    return encoder


def test_timms_plain_files_have_no_biases_and_get_zeros(tmp_path, caplog):
    source = randomised(V3)
    state = as_timm(source.vit)
    state = {k: v for k, v in state.items() if not k.endswith(("q_bias", "v_bias"))}
    with caplog.at_level(logging.INFO):
        loaded = tiny(V3, weights=write(tmp_path / "w.safetensors", state))
    assert "biases" in caplog.text
    assert_same(loaded, without_biases(source))


def test_zero_biases_fit_a_model_without_any(tmp_path):
    source = without_biases(randomised(V3))
    plain = tiny(
        V3_7B, weights=write(tmp_path / "w.pth", as_meta(source.vit)), swiglu_mlp=False, mlp_ratio=4
    )
    assert torch.equal(plain.vit.blocks[1].attn.qkv.weight, source.vit.blocks[1].attn.qkv.weight)


def test_other_biases_do_not_fit_a_model_without_any(tmp_path):
    path = write(tmp_path / "w.pth", as_meta(randomised(V3).vit))
    with pytest.raises(WeightsError, match=r"4 unexpected: blocks\.0\.attn\.q_bias, .*v_bias"):
        tiny(V3_7B, weights=path, swiglu_mlp=False, mlp_ratio=4)


# --- wrappers and prefixes


def other(state):
    return {key: -value for key, value in state.items()}


WRAPPERS = {
    "data parallel": lambda s: prefixed("module.", s),
    "compiled": lambda s: prefixed("_orig_mod.", s),
    "compiled in data parallel": lambda s: prefixed("module._orig_mod.", s),
    "blocks compiled one by one": lambda s: {
        re.sub(r"((?:blocks|layer)\.\d+\.)", r"\1_orig_mod.", key): value
        for key, value in s.items()
    },
    "blocks sharded one by one": lambda s: {
        re.sub(r"((?:blocks|layer)\.\d+\.)", r"\1module.", key): value for key, value in s.items()
    },
    "self-distillation": lambda s: {
        "student": prefixed("backbone.", other(s)),
        "teacher": prefixed("backbone.", s) | {"dino_head.mlp.0.weight": noise(3, 3)},
        "iteration": 7,
    },
    "student and teacher side by side": lambda s: (
        prefixed("student.backbone.", other(s)) | prefixed("teacher.backbone.", s)
    ),
    "DINO-Med3D stage I": lambda s: {
        "epoch": 3,
        "model_state_dict": prefixed("backbone.model.", s) | {"head.weight": noise(2, 24)},
    },
    "timm training": lambda s: {"epoch": 1, "arch": "vit", "state_dict": s},
    "average of weights": lambda s: {"model": other(s), "model_ema": prefixed("module.", s)},
    "two wrappers": lambda s: {"model": {"state_dict": s}},
}


@pytest.mark.parametrize("layout", [as_meta, as_hugging_face])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrappers(wrapper, layout, tmp_path):
    source = randomised(V3)
    path = write(tmp_path / "w.pth", WRAPPERS[wrapper](layout(source.vit)))
    assert_same(tiny(V3, weights=path), source)


def test_what_is_outside_the_encoder_is_mentioned(tmp_path, caplog):
    state = prefixed("backbone.", as_meta(randomised(V3).vit)) | {"dino_head.weight": noise(2)}
    with caplog.at_level(logging.INFO):
        tiny(V3, weights=write(tmp_path / "w.pth", {"teacher": state}))
    assert "1 tensors outside 'backbone.'" in caplog.text
    assert f"from {tmp_path / 'w.pth'}" in caplog.text


def with_lora(state, layers, *, rank=2):
    """Our own checkpoints' form of linear layers with a low-rank update."""
    out = {}
    for key, value in state.items():
        name, _, kind = key.rpartition(".")
        if name.endswith(layers):
            out[f"{name}.base.{kind}"] = value
            if kind == "weight":
                out[f"{name}.lora_down"] = noise(rank, value.shape[1])
                out[f"{name}.lora_up"] = noise(value.shape[0], rank)
                out[f"{name}.lora_scale"] = torch.tensor(0.5)
        else:
            out[key] = value
    return out


def test_our_own_checkpoint_with_its_low_rank_updates(tmp_path):
    source = randomised(V3)
    state = with_lora(as_timm(source.vit), ("s.0.attn.qkv", "s.0.mlp.fc1"))
    assert sum("lora_up" in key for key in state) == 2
    weights = prefixed("encoder.encoder.vit.", state) | {
        "encoder.adapters.0.down.weight": noise(2, 2),
        "decoder.head.weight": noise(2, 2),
    }
    path = write(tmp_path / "checkpoint_final.pth", {"network_weights": weights, "epoch": 5})
    loaded = tiny(V3, weights=path)

    first, second = source.vit.blocks
    update = 0.5 * noise(72, 2) @ noise(2, 24)
    torch.testing.assert_close(
        loaded.vit.blocks[0].attn.qkv.weight, first.attn.qkv.weight + update, atol=1e-6, rtol=0
    )
    update = 0.5 * noise(96, 2) @ noise(2, 24)
    torch.testing.assert_close(
        loaded.vit.blocks[0].mlp.fc1.weight, first.mlp.fc1.weight + update, atol=1e-6, rtol=0
    )
    assert torch.equal(loaded.vit.blocks[0].mlp.fc1.bias, first.mlp.fc1.bias)
    assert torch.equal(loaded.vit.blocks[1].mlp.fc1.weight, second.mlp.fc1.weight)


@pytest.mark.parametrize("layout", [as_meta, as_hugging_face])
def test_peft_names(layout, tmp_path):
    source = randomised(V3)
    adapted = re.compile(r"(attn\.qkv|attn\.proj|[qkvo]_proj)\.")
    state = {adapted.sub(r"\1.base_layer.", k): v for k, v in layout(source.vit).items()}
    assert sum(".base_layer." in key for key in state) >= 8
    path = write(tmp_path / "w.pth", prefixed("base_model.model.", state))
    assert_same(tiny(V3, weights=path), source)


# --- files, directories, the hub


def test_a_directory_with_one_checkpoint(tmp_path):
    source = randomised(V3)
    write(tmp_path / "teacher.pth", as_meta(source.vit))
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / ".hidden.pth").write_text("not this one")
    assert_same(tiny(V3, weights=tmp_path), source)


def test_a_hugging_face_directory_may_hold_other_files(tmp_path):
    source = randomised(V3)
    write(tmp_path / "model.safetensors", as_hugging_face(source.vit))
    (tmp_path / "training_args.bin").write_text("not this one")
    assert_same(tiny(V3, weights=str(tmp_path)), source)


def test_home_is_understood(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    (tmp_path / "w.pth").touch()
    assert find_weights("~/w.pth", hub_repository="") == tmp_path / "w.pth"


@pytest.mark.parametrize(
    ("files", "found"), [([], "found none"), (["b.pth", "a.pt"], "a.pt, b.pth")]
)
def test_a_directory_with_none_or_several(files, found, tmp_path):
    for file in files:
        (tmp_path / file).touch()
    with pytest.raises(WeightsError, match=f"{tmp_path.name}.*{found}"):
        tiny(V3, weights=tmp_path)


@pytest.mark.parametrize("source", ["nowhere.pth", "", "None"])
def test_a_file_that_is_not_there(source, tmp_path, monkeypatch):
    write(tmp_path / "w.pth", as_meta(randomised(V3).vit))
    monkeypatch.chdir(tmp_path)  # an empty setting must not mean the current directory
    with pytest.raises(WeightsError, match=f"'{source}'"):
        tiny(V3, weights=source)


def sharded(folder, state, names=("a.safetensors", "b.safetensors")):
    """A checkpoint in two files and the index that names them."""
    keys = sorted(state)
    shards = {key: names[i % 2] for i, key in enumerate(keys)}
    for name in names:
        write(folder / name, {key: state[key] for key in keys if shards[key] == name})
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": shards}))
    return index


def test_a_sharded_checkpoint(tmp_path):
    source = randomised(V3)
    index = sharded(tmp_path, as_hugging_face(source.vit))
    assert_same(tiny(V3, weights=index), source)
    assert_same(tiny(V3, weights=tmp_path), source)


@pytest.mark.parametrize("outside", ["../b.safetensors", "sub/b.safetensors", "{absolute}"])
def test_an_index_reads_nothing_outside_its_folder(outside, tmp_path):
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    state = as_hugging_face(randomised(V3).vit)
    outside = outside.format(absolute=tmp_path / "b.safetensors")
    index = sharded(folder, state, names=("a.safetensors", outside))
    with pytest.raises(WeightsError, match=r"index.*b\.safetensors"):
        tiny(V3, weights=index)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', '{"weight_map": 3}'],
)
def test_an_index_that_is_none(text, tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(WeightsError, match="index.json"):
        tiny(V3, weights=index)


def test_a_shard_that_is_missing(tmp_path):
    index = sharded(tmp_path, as_hugging_face(randomised(V3).vit))
    (tmp_path / "b.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"b\.safetensors"):
        tiny(V3, weights=index)


@pytest.mark.parametrize(
    ("name", "repository"),
    [
        (V3, "timm/vit_small_patch16_dinov3_qkvb.lvd1689m"),
        (V3_7B, "timm/vit_7b_patch16_dinov3.lvd1689m"),
        (V2, "timm/vit_small_patch14_reg4_dinov2.lvd142m"),
        (V2_PLAIN, "timm/vit_small_patch14_dinov2.lvd142m"),
    ],
)
def test_the_hub(name, repository, no_hub, tmp_path, monkeypatch, caplog):
    source = randomised(name)
    path = write(tmp_path / "model.safetensors", as_timm(source.vit))
    asked = []
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", lambda *a, **_: None)
    monkeypatch.setattr(
        huggingface_hub, "hf_hub_download", lambda *a, **_: asked.append(a) or str(path)
    )
    assert_same(tiny(name, weights="hub"), source)
    assert asked == [(repository, "model.safetensors")]
    assert repository in caplog.text
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *a: str(path))
    assert_same(tiny(name, weights="hub"), source)
    assert len(asked) == 1, "what is in the cache needs no network"


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("odd"), ValueError("gated")])
def test_a_hub_that_cannot_be_reached_names_the_alternatives(error, no_hub, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", fail)
    # it would try again and again
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *a, **_: pytest.fail("asked"))
    with pytest.raises(HubError) as caught:
        tiny(V3, weights="hub")
    for name in ("timm/vit_small_patch16_dinov3_qkvb.lvd1689m", "'weights'", "licence"):
        assert name in str(caught.value)
    with pytest.raises(HubError) as caught:
        tiny(V2_PLAIN, weights="hub")
    assert "timm/vit_small_patch14_dinov2.lvd142m" in str(caught.value)
    assert "licence" not in str(caught.value)  # none is needed


@pytest.mark.parametrize("name", MODELS)
def test_repositories_and_licences_are_those_that_timm_names(name):
    published = timm.get_pretrained_cfg(MODELS[name])
    assert hub_repository(name) == published.hf_hub_id
    assert needs_licence(name) == (published.license == "dinov3-license")
    assert not needs_licence(OPEN_ENCODER)


# --- what is refused


META, HUGGING_FACE = (lambda **sizes: as_meta(randomised(V3, **sizes).vit)), as_hugging_face


def without(state, *keys):
    return {key: value for key, value in state.items() if key not in keys}


REFUSED = {
    "a missing tensor": (
        lambda: without(META(), "blocks.1.mlp.fc2.weight"),
        r"missing: blocks\.1\.mlp\.fc2",
    ),
    "a missing part of attention": (
        lambda: without(HUGGING_FACE(randomised(V3).vit), "layer.1.attention.k_proj.weight"),
        r"missing: .*blocks\.1\.attn\.qkv\.weight",
    ),
    "unexpected tensors": (
        lambda: META() | {"blocks.7.what": noise(3), "neck.bias": noise(3)},
        r"2 unexpected: blocks\.7\.what, neck\.bias$",
    ),
    "everything wrong at once": (
        lambda: META(depth=1) | {"neck.bias": noise(3), "norm.weight": noise(25)},
        r"missing: blocks\.1\..*unexpected: neck\.bias; .*norm\.weight is \(25,\), must be \(24,\)",
    ),
    "another number of heads": (lambda: META(num_heads=3), "heads of 8 .* heads of 12"),
    "rotary periods of another base": (
        lambda: META() | {"rope_embed.periods": 10 ** (torch.arange(3) / 3)},
        "rotary periods",
    ),
    "another MLP": (lambda: as_meta(randomised(V3_PLUS).vit), r"missing: .*mlp\.fc1\."),
    "DINOv2": (lambda: as_timm(randomised(V2).vit), "key bias"),
    "a key bias": (
        lambda: without(META(), "blocks.1.attn.qkv.bias_mask"),
        r"blocks\.1\.attn\.qkv\.bias .*key bias",
    ),
    "a key bias of Hugging Face": (
        lambda: HUGGING_FACE(randomised(V3).vit) | {"layer.0.attention.k_proj.bias": noise(24)},
        r"blocks\.0\.attn\.qkv\.bias .*key bias",
    ),
    **{
        f"a low-rank update without {part}": (
            lambda part=part: without(
                with_lora(as_timm(randomised(V3).vit), (".qkv",)), f"blocks.1.attn.qkv.{part}"
            ),
            r"blocks\.1\.attn\.qkv",
        )
        for part in ("lora_down", "lora_up", "lora_scale")
    },
    "a low-rank update of nothing": (
        lambda: as_timm(randomised(V3).vit) | {"blocks.1.attn.qkv.lora_up": noise(72, 2)},
        r"1 unexpected: blocks\.1\.attn\.qkv\.lora_up",
    ),
    "an update of PEFT that is not merged": (
        lambda: prefixed(
            "base_model.model.", META() | {"blocks.0.attn.qkv.lora_A.default.weight": noise(2, 24)}
        ),
        r"1 unexpected: blocks\.0\.attn\.qkv\.lora_A",
    ),
    "another network": (lambda: {"conv1.weight": torch.zeros(2)}, "conv1.weight"),
    "no tensors": (lambda: {"epoch": 3}, "patch embedding"),
    "a tensor": (lambda: torch.zeros(3), "Tensor"),
    "a list": (lambda: [torch.zeros(3)], "list"),
}


@pytest.mark.parametrize(("make", "names"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_and_the_model_left_as_it_was(make, names, tmp_path):
    torch.save(make(), tmp_path / "w.pth")
    encoder = randomised(V3, seed=5)
    before = as_timm(encoder.vit)
    with pytest.raises(WeightsError, match=f"w.pth.*{names}"):
        load_weights(encoder.vit, tmp_path / "w.pth", hub_repository="")
    after = encoder.vit.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_another_size(tmp_path):
    path = write(tmp_path / "w.pth", META(embed_dim=32))
    with pytest.raises(WeightsError, match=r"bias is \(32,\), must be \(24,\)"):
        tiny(V3, weights=path, num_heads=1)


@pytest.mark.parametrize("layout", [as_timm, as_meta, as_hugging_face])
@pytest.mark.parametrize(
    ("name", "file_of", "names"),
    [(V2, V2_PLAIN, "missing: reg_token"), (V2_PLAIN, V2, "unexpected: reg_token")],
)
def test_dinov2_with_registers_is_not_dinov2_without(name, file_of, names, layout, tmp_path):
    path = write(tmp_path / "w.pth", layout(randomised(file_of).vit))
    with pytest.raises(WeightsError, match=names):
        tiny(name, weights=path)


def test_positions_of_too_large_a_grid_are_refused(tmp_path):
    """One position more than class token and patches need is no reason to add two of them up."""
    state = as_meta(randomised(V2_PLAIN).vit)
    state["pos_embed"] = torch.cat([state["pos_embed"], noise(1, 1, 24)], dim=1)
    with pytest.raises(WeightsError, match=r"pos_embed is \(1, 18, 24\), must be \(1, 17, 24\)"):
        tiny(V2_PLAIN, weights=write(tmp_path / "w.pth", state))


def test_a_damaged_file_is_a_weights_error(tmp_path):
    path = write(tmp_path / "w.pth", META())
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(WeightsError, match=r"w\.pth"):
        tiny(V3, weights=path)


def test_rotary_periods_rounded_to_bfloat16(tmp_path):
    source = randomised(V3)
    state = as_meta(source.vit)
    state["rope_embed.periods"] = state["rope_embed.periods"].bfloat16()  # as published
    assert_same(tiny(V3, weights=write(tmp_path / "w.pth", state)), source)


def test_a_key_bias_of_zeros_is_none(tmp_path):
    source = randomised(V3)
    state = as_meta(source.vit)
    for block in range(2):
        del state[f"blocks.{block}.attn.qkv.bias_mask"]
        state[f"blocks.{block}.attn.qkv.bias"][24:48] = 0
    assert_same(tiny(V3, weights=write(tmp_path / "w.pth", state)), source)
