"""DINO-Med3D as a whole: sizes, alignment, stages, gradients, precision, what a plan carries."""

import copy
import json

import pytest
import torch

from dinomed3d.lifting import build_encoder, stack_slices
from dinomed3d.networks import NetworkSpec, build_network, load_pretrained_encoder, spec_for_patch
from dinomed3d.networks.spec import INTER_SLICE
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.stages import FullSizeLogits

TINY = dict(
    encoder_overrides=dict(embed_dim=24, depth=4, num_heads=2, init_values=1.0),
    voxels_per_token=4,
    lora_rank=2,
    adapter_width=8,
    detail_widths=(4, 6, 8),
    pyramid_width=8,
)


def tiny(channels=1, classes=3, deep=False, **changes):
    torch.manual_seed(0)
    return build_network(channels, classes, deep, **(TINY | changes))


def awaken(network):
    """Give every zero-initialised module a value, so that its effect shows."""
    for name, parameter in network.named_parameters():
        if name.endswith(("lora_up", "up.weight")) and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return network


@pytest.mark.parametrize(
    ("channels", "size"),
    [(1, (4, 56, 40)), (2, (3, 33, 47)), (4, (1, 16, 16)), (1, (2, 20, 8)), (2, (40, 24))],
)
def test_any_size_keeps_its_size(channels, size):
    network = tiny(channels).eval()
    with torch.no_grad():
        assert network(torch.randn(2, channels, *size)).shape == (2, 3, *size)


def test_deep_supervision_gives_levels_finest_first():
    network = tiny(deep=True)
    shapes = [tuple(x.shape) for x in network(torch.randn(1, 1, 3, 41, 39))]
    assert shapes == [(1, 3, 3, 41, 39), (1, 3, 3, 21, 20), (1, 3, 3, 11, 10)]


@pytest.mark.parametrize("halo", [(1, 1), (0, 2), (2, 0)])
def test_only_the_embedding_reads_a_halo(halo):
    """The inner slices of the encoder's frozen part are those of the whole volume; the rest sees no halo."""
    network = awaken(tiny()).eval()
    volume = torch.randn(1, 1, 6, 16, 20)
    below, end = halo[0], 6 - halo[1]
    with torch.no_grad():
        whole, inner = network.encode(volume), network.encode(volume, halo=halo)
        logits = network(volume, halo=halo)
        assert logits.shape == (1, 3, end - below, 16, 20)
        assert torch.allclose(whole[0][:, :, below:end], inner[0], atol=1e-5)
        assert torch.equal(
            logits, network(volume[:, :, below:end], network.encode(network.pad(volume), halo=halo))
        )
        assert not torch.allclose(logits, network(volume[:, :, below:end]), atol=1e-3)


def test_padding_is_undone():
    """Padding repeats the border, so a size that needs none equals the same image padded by hand."""
    network = awaken(tiny()).eval()
    volume = torch.randn(1, 1, 3, 32, 24)
    cropped = volume[..., :29, :22]
    by_hand = torch.nn.functional.pad(cropped.flatten(1, 2), (0, 2, 0, 3), mode="replicate")
    with torch.no_grad():
        assert torch.equal(network(cropped), network(by_hand[:, None])[..., :29, :22])


def test_an_impulse_in_slice_z_answers_in_slice_z_at_every_level():
    """Depth alignment: the response to a changed slice is largest there and symmetric around it."""
    network = awaken(tiny(deep=True, slices=1)).eval()
    with torch.no_grad():
        for kernel in network.modules():  # symmetric across slices, as the response then must be
            if isinstance(kernel, torch.nn.Conv3d) and kernel.kernel_size[0] == 3:
                kernel.weight.copy_((kernel.weight + kernel.weight.flip(2)) / 2)
        base = torch.randn(1, 1, 1, 32, 32).expand(1, 1, 13, 32, 32)
        changed = base.clone()
        changed[:, :, 6] += torch.randn(32, 32)
        padded = network.pad(changed)
        before, after = network.pad(base), padded
        answers = list(
            zip(
                network.semantic_pyramid(before).values(),
                network.semantic_pyramid(after).values(),
                strict=True,
            )
        )
        answers += list(zip(network.detail(before), network.detail(after), strict=True))
        answers += list(zip(network(base), network(changed), strict=True))
    assert len(answers) == 2 + 3 + 3
    for a, b in answers:
        assert a.shape[2] == 13  # depth is kept
        response = (a - b).abs().mean(dim=(0, 1, 3, 4))
        assert response.argmax() == 6
        assert torch.allclose(response, response.flip(0), rtol=1e-3, atol=1e-5)


def test_no_slice_sees_another_without_adapters_and_depth_kernels():
    network = tiny(
        slices=1, depth_kernels=(1, 1, 1, 1), components=("encoder", "detail", "lora")
    ).eval()
    volume = torch.randn(1, 1, 4, 16, 16)
    other = volume.clone()
    other[:, :, 3] = other[:, :, 3].roll(1, -1)  # same statistics for the norms
    with torch.no_grad():
        a, b = (
            network.semantic_pyramid(network.pad(volume)),
            network.semantic_pyramid(network.pad(other)),
        )
        taps_a = network.encoder(network.embedding(volume), depth=4)
        taps_b = network.encoder(network.embedding(other), depth=4)
    for x, y in zip(taps_a, taps_b, strict=True):
        assert torch.allclose(x[:, :, :3], y[:, :, :3], atol=1e-6)
        assert not torch.allclose(x[:, :, 3], y[:, :, 3], atol=1e-3)
    assert a.keys() == b.keys()


def test_adapters_let_slices_see_their_neighbours():
    network = awaken(tiny(slices=1)).eval()
    volume = torch.randn(1, 1, 9, 16, 16)
    other = volume.clone()
    other[:, :, 4] += 1
    with torch.no_grad():
        a = network.encoder(network.embedding(volume), depth=9)[2]
        b = network.encoder(network.embedding(other), depth=9)[2]
    moved = (a - b).abs().amax(dim=(0, 1, 3, 4)) > 1e-7
    # the third tap is after the first tuned block: its adapter reaches one slice to either side
    assert moved.tolist() == [z in (3, 4, 5) for z in range(9)]


@pytest.mark.parametrize("inter_slice", INTER_SLICE)
def test_stage_two_starts_where_stage_one_ended(inter_slice):
    """At its first step the adapted volume encoder gives exactly what stage I's encoder gives."""
    network = tiny(inter_slice=inter_slice).eval()
    volume = torch.randn(2, 1, 5, 16, 24)
    images = network.embedding(volume)
    with torch.no_grad():
        plain = network.encoder.encoder.maps(images)
        adapted = network.encoder(images, depth=5)
    for a, b in zip(plain, adapted, strict=True):
        assert torch.equal(a, b.transpose(1, 2).flatten(0, 1))


@pytest.mark.parametrize("inter_slice", INTER_SLICE)
@pytest.mark.parametrize("stage", [1, 2])
def test_every_trainable_parameter_learns_and_nothing_frozen_moves(stage, inter_slice):
    network = awaken(tiny(deep=True, inter_slice=inter_slice)).train()
    network.begin_stage(stage)
    before = copy.deepcopy(network.state_dict())
    learning = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.1)
    volume = torch.randn(2, 1, 4, 16, 16)
    if stage == 1:
        loss = network.stage_one()(stack_slices(volume, slices=3)).square().mean()
    else:
        loss = sum(x[:, 1].square().mean() + x[:, 0].mean() for x in network(volume))
    loss.backward()
    optimizer.step()
    names = {name: p.requires_grad for name, p in network.named_parameters()}
    without = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    zero = [n for n, p in network.named_parameters() if p.requires_grad and not p.grad.any()]
    assert not zero
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved == {name for name, learns in names.items() if learns}
    encoder = {n for n in names if n.startswith("encoder.encoder.") and ".lora_" not in n}
    assert encoder and all(names[n] == (stage == 1) for n in encoder if not n.endswith("k_bias"))
    assert all(names[n] == (stage == 1) for n in names if n.startswith("proxy."))
    assert all(names[n] == (stage == 2) for n in names if ".lora_" in n or ".adapters." in n)


def test_frozen_encoder_stays_in_eval_mode_in_stage_two():
    network = tiny()
    network.begin_stage(2)
    network.train()
    assert network.decoder.training and not network.encoder.encoder.training
    network.begin_stage(1)
    network.train()
    assert network.encoder.encoder.training


@pytest.mark.parametrize(
    "components",
    [
        ("detail",),
        ("encoder",),
        ("encoder", "detail"),
        ("encoder", "lora"),
        ("encoder", "adapters"),
    ],
)
def test_components_can_be_left_out(components):
    network = tiny(deep=True, components=components).train()
    network.begin_stage(2)
    sum(x.square().mean() for x in network(torch.randn(1, 1, 3, 16, 16))).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    assert (network.detail is None) == ("detail" not in components)
    assert (network.encoder is None) == ("encoder" not in components)


def test_export_and_reload_give_identical_logits(tmp_path):
    network = awaken(tiny()).eval()
    file = tmp_path / "network.pth"
    torch.save(network.state_dict(), file)
    again = build_network(1, 3, False, **network.spec.to_arch_kwargs()).eval()
    again.load_state_dict(torch.load(file, weights_only=True))
    volume = torch.randn(1, 1, 4, 24, 20)
    with torch.no_grad():
        assert torch.equal(network(volume), again(volume))


def test_float32_and_bfloat16_agree():
    """Logits differ by less than 5 % of their spread; bfloat16 keeps 8 bits, about 0.4 % a step."""
    network = awaken(tiny()).eval()
    volume = torch.randn(1, 1, 4, 24, 24)
    with torch.no_grad():
        exact = network(volume)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = network(volume).float()
    assert (exact - rounded).abs().mean() < 0.05 * exact.std()


@pytest.mark.parametrize("channels", [1, 2])
def test_pretrained_weights_arrive_in_every_place(channels):
    network = tiny(channels)
    pretrained = build_encoder(
        "vit_small_patch16_dinov3", weights="none", **TINY["encoder_overrides"]
    )
    volume = torch.full((1, channels, 3, 16, 16), 0.3)
    constant = torch.full((1, 3, 64, 64), 0.3)
    expected = pretrained(constant)[-1].values
    load_pretrained_encoder(network, pretrained)
    with torch.no_grad():
        found = network.encoder(network.embedding(volume), depth=3)[-1][:, :, 1]
    assert torch.allclose(found, expected, atol=1e-4)


def test_pretrained_weights_of_another_architecture_are_refused():
    other = build_encoder(
        "vit_small_patch16_dinov3", weights="none", embed_dim=24, depth=2, num_heads=2
    )
    with pytest.raises(ValueError, match="load_pretrained_encoder"):
        load_pretrained_encoder(tiny(), other)
    with pytest.raises(ValueError, match="load_pretrained_encoder"):
        load_pretrained_encoder(tiny(components=("detail",)), other)


def test_the_decoder_does_not_outweigh_the_encoder():
    """At full size: parameters of everything around the encoder against the encoder's own."""
    with torch.device("meta"):
        spec = spec_for_patch((16, 256, 256), (1, 1, 1))
        network = build_network(1, 2, False, **spec.to_arch_kwargs())
    count = lambda *modules: sum(p.numel() for m in modules for p in m.parameters())  # noqa: E731
    encoder = count(network.encoder.encoder)
    assert count(network.decoder, network.neck, network.fusion, network.detail) < 0.25 * encoder


@pytest.mark.parametrize(
    ("patch", "spacing", "expected"),
    [
        ((40, 56, 40), (1, 1, 1), dict(voxels_per_token=4, levels=4, depth_kernels=(3, 3, 3, 3))),
        (
            (16, 256, 256),
            (3, 1, 1),
            dict(voxels_per_token=8, levels=5, depth_kernels=(1, 3, 3, 3, 3)),
        ),
        ((14, 256, 224), (10, 1.5, 1.5), dict(levels=5, depth_kernels=(1, 1, 3, 3, 3))),
        ((512, 512), (1, 1), dict(voxels_per_token=16, levels=6, depth_kernels=(1,) * 6, slices=1)),
        ((5, 8, 8), (1, 1, 1), dict(levels=3)),
    ],
)
def test_sizes_follow_patch_and_spacing(patch, spacing, expected):
    spec = spec_for_patch(patch, spacing)
    assert {name: getattr(spec, name) for name in expected} == expected


def test_spec_round_trip_through_json_and_the_fields_of_earlier_plans():
    spec = NetworkSpec(**TINY, components=("encoder", "detail"), cascade_channels=2)
    fields = json.loads(json.dumps(spec.to_arch_kwargs()))
    assert NetworkSpec.from_arch_kwargs(fields) == spec
    fields["parts"], fields["prior_channels"] = (
        fields.pop("components"),
        fields.pop("cascade_channels"),
    )
    assert NetworkSpec.from_arch_kwargs(fields) == spec


@pytest.mark.parametrize(
    ("fields", "heads"),
    [
        (dict(), 3),
        (dict(supervised_levels=4), 3),  # the coarsest level has none
        (dict(supervised_levels=1), 1),
        (dict(components=("detail",)), 2),  # three levels, those of the detail stream
    ],
)
def test_the_number_of_heads(fields, heads):
    network = tiny(deep=True, **fields)
    assert network.spec.deep_supervision_heads == heads == len(network.decoder.seg_layers)
    assert len(network(torch.randn(1, 1, 2, 16, 16))) == heads


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (dict(slices=4), "'slices'.* got 4"),
        (dict(encoder="resnet50"), "'encoder' .* got 'resnet50'"),
        (dict(voxels_per_token=6), "'voxels_per_token' .* got 6"),
        (dict(components=("lora",)), "'components'"),
        (dict(components=("detail", "lora")), "'components'"),
        (dict(components=("detail", "magic")), "'components'"),
        (dict(components=("encoder",), cascade_channels=2), "'cascade_channels'"),
        (dict(levels=2), "'depth_kernels'"),
        (dict(depth_kernels=(2, 3, 3, 3)), "'depth_kernels'"),
        (dict(supervised_levels=9), "'supervised_levels'"),
        (dict(lora_rank=0), "'lora_rank'"),
        (dict(tuned_blocks=-1), "'tuned_blocks'"),
        (dict(tuned_blocks=5), "'tuned_blocks' .* 4, .* got 5"),  # the encoder has four
        (dict(tuned_blocks=2, taps=(0,)), "'tuned_blocks' .* 1, .* got 2"),
        (dict(inter_slice="sums"), "'inter_slice' .* got 'sums'"),
        (dict(inter_slice="attention", adapter_width=7), "'adapter_width' .* got 7"),
        (dict(taps=()), "'taps'"),
        (dict(taps=(2, 1)), "'taps'"),
        (dict(taps=(-1, 1)), "'taps'"),
        (dict(taps=(1, 1)), "'taps'"),
        (dict(levels=1, depth_kernels=(3,), detail_widths=(4,)), "'levels' .* got 1"),
        (dict(levels=9, depth_kernels=(3,) * 9), "'levels' .* got 9"),
        # as read from a plan of another version, or an edited one
        (dict(wheels=4), "wheels"),
        (dict(levels="4"), "'levels'"),
        (dict(slices=None), "'slices'"),
        (dict(detail_widths=[4, "x"]), "'detail_widths'"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused(fields, names):
    with pytest.raises(UserError, match=names):
        build_network(1, 2, False, **(TINY | fields))


@pytest.mark.parametrize(
    ("spec", "patch"),
    [
        (dict(voxels_per_token=32), (40, 56, 24)),  # a token larger than the patch
        (dict(levels=8, depth_kernels=(3,) * 8), (8, 32, 32)),  # padded to 16 times its size
        (
            spec_for_patch((4, 4), (1, 1)).to_arch_kwargs(),
            (4, 4),
        ),  # one voxel at the coarsest level
        (spec_for_patch((1, 3, 4), (1, 1, 1)).to_arch_kwargs(), (1, 3, 4)),
    ],
)
def test_patches_that_the_network_cannot_segment_are_refused(spec, patch):
    with pytest.raises(UserError, match="patch"):
        NetworkSpec.from_arch_kwargs(spec).check_patch(patch)


def test_a_patch_without_voxels_and_an_input_without_an_image_are_refused():
    with pytest.raises(UserError, match=r"patch .*\[0, 8, 8\]"):
        spec_for_patch((0, 8, 8), (1, 1, 1))
    with pytest.raises(UserError, match="'input_channels' .*'cascade_channels'"):
        tiny(channels=2, cascade_channels=2)


@pytest.mark.parametrize(
    "patch",
    [
        (8, 8),
        (1, 8, 8),
        (3, 8, 9),
        (1, 16, 300),
        (2, 33, 12),
        (3, 6, 5),
        (6, 5),
        (40, 5, 40),
        (2, 1, 1),
    ],
)
def test_the_smallest_patches_can_be_segmented_and_trained(patch):
    spec = spec_for_patch(patch, (1.0,) * len(patch))
    spec.check_patch(patch)
    sizes = dict(
        encoder_overrides=TINY["encoder_overrides"], detail_widths=[4, 6, 8], pyramid_width=8
    )
    network = build_network(1, 2, False, **(spec.to_arch_kwargs() | sizes)).train()
    network.begin_stage(2)
    logits = network(torch.randn(1, 1, *patch))
    assert logits.shape == (1, 2, *patch) and torch.isfinite(logits).all()
    logits.square().mean().backward()


@pytest.mark.parametrize(
    ("fields", "tuned"),
    [
        (dict(), 2),  # a third of four blocks, rounded up
        (dict(tuned_blocks=3), 3),
        (dict(taps=(0, 1, 2)), 1),
        (dict(components=("encoder", "lora", "detail")), 2),
        (dict(components=("encoder", "detail")), 0),
    ],
)
def test_the_number_of_tuned_blocks(fields, tuned):
    encoder = tiny(**fields).encoder
    assert encoder.first_tuned == encoder.encoder.run_blocks - tuned
    assert len(encoder.adapters) == tuned * ("components" not in fields)


def test_taps_may_leave_out_the_last_block():
    network = awaken(tiny(taps=(0, 1), deep=True)).train()
    network.begin_stage(2)
    sum(x.square().mean() for x in network(torch.randn(1, 1, 3, 16, 16))).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_stages_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="no stage 3"):
        tiny().begin_stage(3)
    with pytest.raises(ValueError, match="no stage 1"):
        tiny(components=("detail",)).begin_stage(1)
    with pytest.raises(ValueError, match="stage_one"):
        tiny(components=("detail",)).stage_one()


def test_an_earlier_segmentation_reaches_the_detail_stream_but_not_the_encoder():
    network = awaken(tiny(channels=4, cascade_channels=3)).eval()
    assert network.encoder.encoder.in_channels == 3  # three slices of the one image channel
    volume = torch.randn(1, 4, 3, 16, 16)
    other = torch.cat([volume[:, :1], torch.randn(1, 3, 3, 16, 16)], dim=1)
    there = network.semantic_pyramid(other)
    assert all(
        torch.equal(level, there[s]) for s, level in network.semantic_pyramid(volume).items()
    )
    assert not torch.equal(network(volume), network(other))
    stage_one = FullSizeLogits(network, stage=1, heads=None)
    assert torch.equal(stage_one(volume), stage_one(other))
