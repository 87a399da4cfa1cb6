"""The encoder on a volume: where an adapter stands, what a tap holds, in which order."""

import pytest
import torch
from torch import nn

from dinomed3d.networks.adapter import Adapter3D
from dinomed3d.networks.lora import LoRALinear, add_lora
from dinomed3d.networks.volume_encoder import SliceTokens, VolumeEncoder


class Times(Adapter3D):
    """An update of some times the tokens it is given."""

    def __init__(self, factor):
        nn.Module.__init__(self)
        self.factor = factor

    def forward(self, tokens, *, depth, grid):
        return self.factor * tokens


@pytest.fixture
def arithmetic(tiny_encoder, monkeypatch):
    """An encoder whose attention adds one and whose MLP squares; its tokens begin as ones."""
    monkeypatch.setattr(
        tiny_encoder, "embed", lambda images: (torch.ones(len(images), 5 + 4, 24), None)
    )
    monkeypatch.setattr(tiny_encoder, "attention_half", lambda _, tokens, rope: tokens + 1)
    monkeypatch.setattr(tiny_encoder, "mlp_half", lambda _, tokens: tokens**2)
    tiny_encoder.norm = False
    return tiny_encoder


def test_an_adapter_stands_between_attention_and_mlp(arithmetic):
    arithmetic.taps = (0,)
    encoder = VolumeEncoder(arithmetic, nn.ModuleList([Times(10)]), tuned_blocks=1)
    (tap,) = encoder(torch.zeros(3, 3, 32, 32), depth=3)
    # (1 + 1 + 10 * 2)²; before the attention it would give 144, after the MLP 44
    assert tap.shape == (1, 24, 3, 2, 2) and bool((tap == 484).all())


def test_each_tuned_block_has_its_own_adapter(arithmetic):
    arithmetic.taps = (0, 1, 2)
    encoder = VolumeEncoder(arithmetic, nn.ModuleList([Times(1), Times(2)]), tuned_blocks=2)
    taps = encoder(torch.zeros(2, 3, 32, 32), depth=2)
    # (1 + 1)², then (2 * (4 + 1))², then (3 * (100 + 1))²
    assert [tap.unique().item() for tap in taps] == [4, 100, 303**2]


def test_taps_come_in_the_order_of_blocks(arithmetic):
    arithmetic.taps = (0, 1, 2)
    taps = VolumeEncoder(arithmetic, nn.ModuleList(), tuned_blocks=0)(
        torch.zeros(2, 3, 32, 32), depth=2
    )
    assert [tap.unique().item() for tap in taps] == [4, 25, 676]


def test_taps_pass_the_final_norm_if_asked(arithmetic):
    arithmetic.taps = (0, 1)
    arithmetic.norm = True
    with torch.no_grad():
        arithmetic.vit.norm.weight.fill_(3.0)
        arithmetic.vit.norm.bias.fill_(0.5)
    arithmetic.embed = lambda images: (torch.tensor([0.0, 1.0]).repeat(len(images), 9, 12), None)
    taps = VolumeEncoder(arithmetic, nn.ModuleList(), tuned_blocks=0)(
        torch.zeros(2, 3, 32, 32), depth=2
    )
    for tap in taps:  # two values as often each: the norm makes them -1 and 1
        torch.testing.assert_close(
            tap[0, :2, 0, 0, 0], torch.tensor([-2.5, 3.5]), atol=1e-4, rtol=0
        )


def test_prefix_tokens_are_no_part_of_a_tap_and_slices_stay_in_place(arithmetic):
    """Patch (i, j) of slice z of volume b holds 1000 b + 100 z + 10 i + j before the blocks."""
    b, z, i, j = torch.meshgrid(*map(torch.arange, (2, 3, 2, 2)), indexing="ij")
    values = (1000 * b + 100 * z + 10 * i + j).float()  # (B, D, h, w)
    patches = values.reshape(6, 4, 1).expand(6, 4, 24)
    arithmetic.embed = lambda images: (torch.cat([-torch.ones(6, 5, 24), patches], 1), None)
    arithmetic.mlp_half = lambda _, tokens: tokens
    arithmetic.taps = (0,)
    (tap,) = VolumeEncoder(arithmetic, nn.ModuleList(), tuned_blocks=0)(
        torch.zeros(6, 3, 32, 32), depth=3
    )
    assert torch.equal(tap[:, 7], values + 1)


@pytest.fixture
def build(tiny_encoder):
    """An encoder of four blocks whose last `tuned` have updates and adapters that do something."""

    def built(*, tuned, adapters=True, lora=True, taps=(0, 1, 2, 3)):
        tiny_encoder.taps = taps
        torch.manual_seed(1)
        run = tiny_encoder.run_blocks
        if lora:
            add_lora(tiny_encoder, blocks=range(run - tuned, run), rank=2, alpha=2)
        modules = [Adapter3D(24, width=4) for _ in range(tuned if adapters else 0)]
        encoder = VolumeEncoder(tiny_encoder, nn.ModuleList(modules), tuned_blocks=tuned)
        for name, parameter in encoder.named_parameters():
            if name.endswith(("lora_up", "up.weight")):
                nn.init.normal_(parameter, std=0.3)
        return encoder

    return built


def slices_that_moved(before, after):
    return ((before - after).abs().amax(dim=(0, 1, 3, 4)) > 1e-6).tolist()


def test_only_the_last_blocks_see_neighbours(build):
    """Two tuned blocks of four: each of their adapters reaches one slice further."""
    encoder = build(tuned=2)
    assert (encoder.first_tuned, encoder.shared_blocks) == (2, 2)
    images = torch.randn(9, 3, 32, 32)
    changed = images.clone()
    changed[4] += 1
    with torch.no_grad():
        pairs = zip(encoder(images, depth=9), encoder(changed, depth=9), strict=True)
    reach = [[abs(z - 4) <= r for z in range(9)] for r in (0, 0, 1, 2)]
    assert [slices_that_moved(a, b) for a, b in pairs] == reach


@pytest.mark.parametrize("adapters", [True, False])
def test_what_is_shared_is_independent_of_the_window(build, adapters):
    """Slices encoded one by one and put together give the same as the window at once."""
    encoder = build(tuned=2, adapters=adapters)
    assert encoder.shared_blocks == (2 if adapters else 4)
    images = torch.randn(6, 3, 32, 48)
    with torch.no_grad():
        parts = [encoder.each_slice(image[None]) for image in images]
        whole = SliceTokens(
            tokens=torch.cat([part.tokens for part in parts]),
            taps=tuple(map(torch.cat, zip(*(part.taps for part in parts), strict=True))),
            rope=parts[0].rope,
            image_size=(32, 48),
        )
        assert len(whole.taps) == encoder.shared_blocks
        found, expected = encoder.across_slices(whole, depth=3), encoder(images, depth=3)
    assert len(found) == 4
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_in_stage_two_blocks_before_the_tuned_ones_record_nothing(build, checkpointing):
    encoder = build(tuned=1)
    encoder.encoder.checkpointing = checkpointing
    images = torch.randn(2, 3, 32, 32, requires_grad=True)  # gradients would reach it if they could
    encoder.encoder.unfreeze()
    assert all(tap.requires_grad for tap in encoder(images, depth=2))  # stage I: all blocks learn
    encoder.encoder.freeze()
    for name, parameter in encoder.encoder.named_parameters():
        parameter.requires_grad_(".lora_" in name or name == "vit.blocks.0.mlp.fc1.bias")
    taps = encoder(images, depth=2)
    assert [tap.requires_grad for tap in taps] == [False, False, False, True]
    taps[-1].sum().backward()
    assert images.grad is None
    learned = {n for n, p in encoder.encoder.named_parameters() if p.grad is not None}
    assert learned and all(n.startswith("vit.blocks.3.") and ".lora_" in n for n in learned)


def test_low_rank_updates_sit_in_the_tuned_blocks_alone(build):
    """The tuned blocks are counted back from the last tap, not from the last block."""
    encoder = build(tuned=2, taps=(0, 2))
    has = [
        any(isinstance(m, LoRALinear) for m in block.modules())
        for block in encoder.encoder.vit.blocks
    ]
    assert has == [False, True, True, False]
    assert encoder.first_tuned == 1 and len(encoder.adapters) == 2


@pytest.mark.parametrize(("tuned", "modules"), [(5, 0), (-1, 0), (2, 1), (0, 1)])
def test_what_does_not_fit_the_blocks_is_refused(tiny_encoder, tuned, modules):
    adapters = nn.ModuleList(Adapter3D(24, width=4) for _ in range(modules))
    with pytest.raises(ValueError, match="VolumeEncoder: .*(tuned_blocks|adapters)"):
        VolumeEncoder(tiny_encoder, adapters, tuned_blocks=tuned)
