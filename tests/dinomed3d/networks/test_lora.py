"""Low-rank updates: zero at first, by hand afterwards, and really in the way of timm's fused layers."""

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from dinomed3d.lifting import build_encoder
from dinomed3d.networks.lora import LoRALinear, add_lora


def test_update_by_hand():
    base = nn.Linear(2, 1, bias=True)
    layer = LoRALinear(base, rank=2, alpha=6.0)
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 2.0]]))
        base.bias.fill_(0.5)
        layer.lora_down.copy_(torch.tensor([[3.0, 4.0], [1.0, -2.0]]))
        layer.lora_up.copy_(torch.tensor([[5.0, 7.0]]))
    # 1 * 10 + 2 * 1 + 0.5 + (6 / 2) * (5 * (3 * 10 + 4) + 7 * (10 - 2))
    assert layer(torch.tensor([[10.0, 1.0]])).item() == 12.5 + 3 * (170 + 56)


def test_merged_into_the_weight_it_gives_the_same_before_and_after_a_step():
    """Without gradients one product does it: W + scale * up down, of the parameters as they are now."""
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(5, 3), rank=2, alpha=3.0).requires_grad_(False)
    layer.lora_down.requires_grad_()
    layer.lora_up.requires_grad_()
    nn.init.normal_(layer.lora_up)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    x = torch.randn(2, 4, 5)
    for _ in range(2):
        learning = layer(x)
        with torch.no_grad():
            merged = layer(x)
            products = calls(lambda: layer(x))
        assert products == ["addmm", "linear"]
        torch.testing.assert_close(merged, learning)
        state = layer.state_dict()
        weight = state["base.weight"] + state["lora_scale"] * state["lora_up"] @ state["lora_down"]
        torch.testing.assert_close(merged, nn.functional.linear(x, weight, state["base.bias"]))
        learning.square().sum().backward()
        torch.optim.SGD([layer.lora_down, layer.lora_up], lr=0.1).step()
    after = layer.state_dict()
    assert after.keys() == before.keys()
    assert torch.equal(after["base.weight"], before["base.weight"])
    assert not torch.equal(after["lora_up"], before["lora_up"])


def calls(run):
    """Names of the products that are called."""
    found = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func.__name__ in ("linear", "addmm", "addmm_", "matmul"):
                found.append(func.__name__)
            return func(*args, **(kwargs or {}))

    with Watch():
        run()
    return found


def test_under_autocast_the_merge_is_made_in_full_precision():
    """A small update would be lost in a weight of eight bits."""
    layer = LoRALinear(nn.Linear(1, 1, bias=False), rank=1, alpha=1.0)
    with torch.no_grad():
        layer.base.weight.fill_(1.0)
        layer.lora_down.fill_(2**-5)
        layer.lora_up.fill_(2**-5)
        with torch.autocast("cpu", torch.bfloat16):
            assert layer.merged_weight().item() == 1.0 + 2**-10


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("vit_small_patch16_dinov3", 4),  # qkv, proj, fc1, fc2
        ("vit_small_plus_patch16_dinov3", 5),  # the gated MLP has two first layers
        ("vit_small_patch14_reg4_dinov2", 4),
    ],
)
def test_every_layer_of_every_block_gets_one_and_it_counts(name, layers):
    torch.manual_seed(0)
    encoder = build_encoder(
        name,
        weights="none",
        norm=False,
        frozen=False,
        embed_dim=24,
        depth=2,
        num_heads=2,
        init_values=1.0,
    )
    images = torch.randn(1, 3, 2 * encoder.stride, 2 * encoder.stride)
    before = encoder(images)[-1].values
    add_lora(encoder, blocks=range(2), rank=2, alpha=2)
    updates = [m for m in encoder.modules() if isinstance(m, LoRALinear)]
    assert len(updates) == 2 * layers
    assert torch.allclose(encoder(images)[-1].values, before, atol=1e-6)  # nothing changed yet
    for update in updates:  # each single one must be on the way from image to features
        with torch.no_grad():
            update.lora_up.fill_(0.1)
        assert not torch.allclose(encoder(images)[-1].values, before, atol=1e-4)
        with torch.no_grad():
            update.lora_up.zero_()


def test_rank_below_one_is_refused():
    with pytest.raises(ValueError, match="'rank' must be at least 1, got 0"):
        LoRALinear(nn.Linear(2, 2), rank=0, alpha=1)
