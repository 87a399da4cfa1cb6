"""DINO-Med3D as a whole: sizes, alignment, stages, gradients, precision, what a plan carries."""

import copy
import json

import pytest
import torch

from dinomed3d.lifting import build_encoder, stack_slices
from dinomed3d.networks import (
    NetworkSpec,
    build_network,
    load_pretrained_encoder,
    neck_taps,
    slice_step,
    token_side,
)
from dinomed3d.networks.lora import LoRALinear
from dinomed3d.networks.spec import INTER_SLICE
from dinomed3d.runtime.errors import UserError
from dinomed3d.training.step.stages import FullSizeLogits

TINY = dict(
    encoder_overrides=dict(embed_dim=24, depth=4, num_heads=2, init_values=1.0),
    taps=(0, 1, 2, 3),
    voxels_per_token=4,
    lora_rank=2,
    adapter_width=8,
    token_width=8,
    cnn=dict(
        widths=[4, 6, 8],
        strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        kernels=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        blocks=[1, 1, 1],
        decoder_blocks=[1, 1],
    ),
)


def tiny(channels=1, classes=3, deep=False, **changes):
    torch.manual_seed(0)
    return build_network(channels, classes, deep, **(TINY | changes))


def awaken(network):
    """Give every zero-initialised module a value, so that its effect shows."""
    torch.manual_seed(1)
    for name, parameter in network.named_parameters():
        if name.endswith(("lora_up", "up.weight", "enter.weight")) and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    for name, parameter in network.named_parameters():
        if name.endswith("norm.weight") and not parameter.any():  # nnU-Net's residual blocks
            torch.nn.init.ones_(parameter)
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
    assert shapes == [(1, 3, 3, 41, 39), (1, 3, 3, 21, 20)]


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
            logits, network(volume[:, :, below:end], network.encode(volume, halo=halo))
        )
        assert not torch.allclose(logits, network(volume[:, :, below:end]), atol=1e-3)


def test_padding_is_undone():
    """Padding repeats the border, so a size that needs none equals the same image padded by hand."""
    network = awaken(tiny(components=("detail",))).eval()
    volume = torch.randn(1, 1, 4, 32, 24)
    cropped = volume[:, :, :3, :29, :22]
    by_hand = torch.nn.functional.pad(cropped, (0, 2, 0, 3, 0, 1), mode="replicate")
    with torch.no_grad():
        assert torch.equal(network(cropped), network(by_hand)[:, :, :3, :29, :22])


def test_at_the_start_the_network_is_its_cnn():
    """Never worse than the CNN alone: until a gate has learned, tokens change nothing, whatever they are."""
    with_encoder, alone = tiny().eval(), tiny(components=("detail",)).eval()
    volume = torch.randn(2, 1, 4, 24, 20)
    cnn = {k: v for k, v in with_encoder.state_dict().items() if k in alone.state_dict()}
    assert cnn.keys() == alone.state_dict().keys()
    assert all(torch.equal(v, cnn[k]) for k, v in alone.state_dict().items())  # also from one seed
    with torch.no_grad():
        assert torch.equal(with_encoder(volume), alone(volume))
        assert not torch.equal(awaken(with_encoder)(volume), alone(volume))


def test_what_tokens_add_to_a_level_is_skip_and_input_of_the_next():
    cnn = dict(
        widths=[4, 6, 8, 8],
        strides=[[1, 1, 1], [1, 2, 2], [1, 2, 2], [1, 2, 2]],
        kernels=[[1, 3, 3]] * 4,
        blocks=[1] * 4,
        decoder_blocks=[1] * 3,
    )
    network = awaken(tiny(cnn=cnn)).eval()
    volume = torch.randn(1, 1, 2, 32, 24)

    def entered(level, x):
        key = str(level)
        return network.fusion[key](network.neck[key](taps, x.shape[2:]), x)

    with torch.no_grad():
        taps = network.encode(volume)
        alone, found = network.detail(volume), network.skips(volume, taps)
        third = entered(2, alone[2])
        wanted = [*alone[:2], third, entered(3, network.detail.levels[3](third))]
        for skip, expected in zip(found, wanted, strict=True):
            assert torch.equal(skip, expected)


def test_the_cnn_is_nnunets_own():
    """The detail stream and decoder give what nnU-Net's class with the same plan gives."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet

    for residual, cls, blocks in (
        (True, ResidualEncoderUNet, "n_blocks_per_stage"),
        (False, PlainConvUNet, "n_conv_per_stage"),
    ):
        cnn = TINY["cnn"] | dict(residual=residual)
        network = tiny(components=("detail",), cnn=cnn, deep=True).eval()
        reference = cls(
            input_channels=1,
            n_stages=3,
            features_per_stage=cnn["widths"],
            conv_op=torch.nn.Conv3d,
            kernel_sizes=cnn["kernels"],
            strides=cnn["strides"],
            num_classes=3,
            n_conv_per_stage_decoder=cnn["decoder_blocks"],
            conv_bias=True,
            norm_op=torch.nn.InstanceNorm3d,
            norm_op_kwargs={"eps": 1e-5, "affine": True},
            nonlin=torch.nn.LeakyReLU,
            nonlin_kwargs={"inplace": True},
            deep_supervision=True,
            **{blocks: cnn["blocks"]},
        ).eval()
        assert sum(p.numel() for p in network.parameters()) == sum(
            p.numel() for p in reference.parameters()
        )
        for own, other in (("detail", "encoder"), ("decoder", "decoder")):
            names = {"levels": "stages"} if own == "detail" else {}
            state = {
                ".".join(names.get(part, part) for part in key.split(".")): value
                for key, value in getattr(network, own).state_dict().items()
            }
            target = getattr(reference, other)
            target.load_state_dict(state, strict=own == "detail")
        volume = torch.randn(1, 1, 4, 16, 16)
        with torch.no_grad():
            for a, b in zip(network(volume), reference(volume), strict=True):
                assert torch.equal(a, b)


@pytest.mark.parametrize("slices_per_token", [1, 3])
def test_what_tokens_say_of_a_slice_enters_at_that_slice(slices_per_token):
    """Depth alignment: the response to changed slices is largest there and symmetric around them."""
    network = awaken(tiny(slices=slices_per_token, slices_per_token=slices_per_token)).eval()
    base = torch.randn(1, 1, 1, 32, 32).expand(1, 1, 27, 32, 32)
    changed = base.clone()
    changed[:, :, 12:15] += torch.randn(32, 32)
    with torch.no_grad():
        for module in network.encoder.adapters:
            mix = getattr(module, "mix", None)
            if mix is not None:  # symmetric across slices, as the response then must be
                mix.weight.copy_((mix.weight + mix.weight.flip(2)) / 2)
        taps = [network.encode(volume) for volume in (base, changed)]
        neck = network.neck["2"]
        neck.project[1] = torch.nn.Identity()  # the norm over the volume moves all of it
        neck.level_cell = (1, 4, 4)
        before, after = (neck(tap, (27, 8, 8)) for tap in taps)
    response = (before - after).abs().mean(dim=(0, 1, 3, 4))
    assert response[12:15].sum() > 0.3 * response.sum()
    torch.testing.assert_close(response, response.flip(0), rtol=1e-3, atol=1e-6)


def test_the_middle_slice_of_each_token_is_encoded():
    """Where a token has fewer slices at the end, and no middle one, it is the last."""
    network = tiny(slices=1, slices_per_token=3)
    for depth, encoded in ((9, [1, 4, 7]), (5, [1, 4]), (4, [1, 3]), (1, [0])):
        volume = torch.arange(float(depth)).view(1, 1, depth, 1, 1).expand(1, 1, depth, 4, 8)
        assert network.images(volume)[:, 0, 0, 0].tolist() == encoded


def test_no_slice_sees_another_without_adapters():
    network = tiny(slices=1, components=("encoder", "detail", "lora")).eval()
    volume = torch.randn(1, 1, 4, 16, 16)
    other = volume.clone()
    other[:, :, 3] += 1
    with torch.no_grad():
        taps_a, taps_b = network.encode(volume), network.encode(other)
    for x, y in zip(taps_a, taps_b, strict=True):
        assert torch.allclose(x[:, :, :3], y[:, :, :3], atol=1e-6)
        assert not torch.allclose(x[:, :, 3], y[:, :, 3], atol=1e-3)


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
    # nnU-Net's blocks hold each layer under two names
    everything = network.named_parameters(remove_duplicate=False)
    names = {name: p.requires_grad for name, p in everything}
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
        ("detail", "encoder"),
        ("detail", "encoder", "lora"),
        ("detail", "encoder", "adapters"),
    ],
)
def test_components_can_be_left_out(components):
    network = awaken(tiny(deep=True, components=components)).train()
    network.begin_stage(2)
    sum(x.square().mean() for x in network(torch.randn(1, 1, 3, 16, 16))).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
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


@pytest.mark.parametrize(
    ("channels", "order"), [(("R", "G", "B"), [0, 1, 2]), (("blue", "red", "green"), [2, 0, 1])]
)
def test_colours_are_read_as_the_pretrained_encoder_reads_them(channels, order):
    network = tiny(3, slices=1).eval()
    settings = TINY["encoder_overrides"]
    pretrained = build_encoder("vit_small_patch16_dinov3", weights="none", **settings)
    photograph = torch.rand(1, 3, 64, 64)
    expected = pretrained(photograph)[-1].values
    load_pretrained_encoder(network, pretrained, channels=channels)
    # the tokens of a photograph whose pixels are the voxels' enlarged ones
    with torch.no_grad():
        found = network.encoder(photograph[:, order], depth=1)[-1][:, :, 0]
    assert torch.allclose(found, expected, atol=1e-5)


def test_pretrained_weights_of_another_architecture_are_refused():
    other = build_encoder(
        "vit_small_patch16_dinov3", weights="none", embed_dim=24, depth=2, num_heads=2
    )
    with pytest.raises(ValueError, match="load_pretrained_encoder"):
        load_pretrained_encoder(tiny(), other)
    with pytest.raises(ValueError, match="load_pretrained_encoder"):
        load_pretrained_encoder(tiny(components=("detail",)), other)


def test_spec_round_trip_through_json():
    spec = tiny(components=("encoder", "detail"), channels=3, cascade_channels=2).spec
    fields = json.loads(json.dumps(spec.to_arch_kwargs()))
    assert NetworkSpec.from_arch_kwargs(fields) == spec


@pytest.mark.parametrize(
    ("strides", "levels", "cells"),
    [
        ([1, 2, 2], (2,), [4]),
        ([1, 2, 2, 2, 2, 2], (2, 3, 4), [4, 8, 16]),
        ([1, 2], (1,), [2]),  # no level at stride 4: the coarsest
    ],
)
def test_tokens_enter_levels_at_strides_4_8_and_16(strides, levels, cells):
    count = len(strides)
    cnn = dict(
        widths=[4] * count,
        strides=[[1, s, s] for s in strides],
        kernels=[[3, 3, 3]] * count,
        blocks=[1] * count,
        decoder_blocks=[1] * (count - 1),
    )
    network = tiny(cnn=cnn)
    assert network.spec.token_levels == levels
    assert list(network.fusion) == list(network.neck) == [str(level) for level in levels]
    assert [neck.level_cell for neck in network.neck.values()] == [
        (1, cell, cell) for cell in cells
    ]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        (dict(slices=4), "'slices'.* got 4"),
        (dict(encoder="resnet50"), "'encoder' .*'resnet50'"),
        (dict(voxels_per_token=6), "'voxels_per_token' .* got 6"),
        (dict(components=("lora",)), "'components'"),
        (dict(components=("encoder",)), "'components'"),
        (dict(components=("detail", "lora")), "'components'"),
        (dict(components=("detail", "magic")), "'components'"),
        (dict(lora_rank=0), "'lora_rank'"),
        (dict(slices_per_token=0), "'slices_per_token'"),
        (dict(slices_per_token=2), "'slices_per_token'"),
        (dict(tuned_blocks=-1), "'tuned_blocks'"),
        (dict(tuned_blocks=5), "'tuned_blocks' .* 4, .* got 5"),  # the encoder has four
        (dict(tuned_blocks=2, taps=(0,)), "'tuned_blocks' .* 1, .* got 2"),
        (dict(inter_slice="sums"), "'inter_slice' .* got 'sums'"),
        (dict(inter_slice="attention", adapter_width=7), "'adapter_width' .* got 7"),
        (dict(taps=()), "'taps'"),
        (dict(taps=(2, 1)), "'taps'"),
        (dict(taps=(-1, 1)), "'taps'"),
        (dict(taps=(1, 1)), "'taps'"),
        # as read from a plan of another version, or an edited one
        (dict(wheels=4), "wheels"),
        (dict(token_width="4"), "'token_width'"),
        (dict(slices=None), "'slices'"),
        (dict(cnn=3), "'cnn'"),
    ],
    ids=str,
)
def test_impossible_networks_are_refused(fields, names):
    with pytest.raises(UserError, match=names):
        build_network(1, 2, False, **(TINY | fields))


@pytest.mark.parametrize(
    ("fields", "patch"),
    [
        (dict(voxels_per_token=64), (40, 56, 24)),  # tokens larger than the patch
        (dict(), (1, 3, 4)),  # one voxel at the coarsest level
        (dict(voxels_per_token=16), (16, 16)),  # one token
        (dict(voxels_per_token=16, slices_per_token=3), (3, 16, 16)),
        (dict(), (0, 8, 8)),
    ],
)
def test_patches_that_the_network_cannot_segment_are_refused(fields, patch):
    with pytest.raises(UserError, match="patch"):
        tiny(**fields).spec.check_patch(patch)


def test_a_patch_may_be_padded_to_four_times_its_size():
    cnn = dict(
        widths=[4] * 6,
        strides=[[1, 1, 1]] + [[1, 2, 2]] * 5,
        kernels=[[3, 3, 3]] * 6,
        blocks=[1] * 6,
        decoder_blocks=[1] * 5,
    )
    spec = NetworkSpec.from_arch_kwargs(TINY | dict(cnn=cnn))
    spec.check_patch((2, 16, 16))  # to 32 x 32
    with pytest.raises(UserError, match="would pad"):
        spec.check_patch((2, 16, 15))


def test_an_input_without_an_image_is_refused():
    with pytest.raises(UserError, match="'input_channels' .*'cascade_channels'"):
        tiny(channels=2, cascade_channels=2)


@pytest.mark.parametrize(
    "patch", [(8, 8), (1, 8, 8), (3, 8, 9), (2, 33, 12), (3, 6, 5), (40, 5, 40)]
)
def test_small_patches_can_be_segmented_and_trained(patch):
    network = tiny().train()
    network.spec.check_patch(patch)
    network.begin_stage(2)
    logits = network(torch.randn(1, 1, *patch))
    assert logits.shape == (1, 3, *patch) and torch.isfinite(logits).all()
    logits.square().mean().backward()


@pytest.mark.parametrize(
    ("fields", "tuned"),
    [
        (dict(), 2),  # a third of four blocks, rounded up
        (dict(tuned_blocks=3), 3),
        (dict(taps=(0, 1, 2)), 1),
        (dict(components=("detail", "encoder", "lora")), 2),
        (dict(components=("detail", "encoder")), 0),
    ],
)
def test_the_number_of_tuned_blocks(fields, tuned):
    encoder = tiny(**fields).encoder
    updates = [module.scale for module in encoder.modules() if isinstance(module, LoRALinear)]
    assert bool(updates) == ("lora" in fields.get("components", ("lora",))) and {*updates} <= {1}
    assert encoder.first_tuned == encoder.encoder.run_blocks - tuned
    assert len(encoder.adapters) == tuned * ("components" not in fields)


@pytest.mark.parametrize("stage", [1, 2])
def test_taps_may_leave_out_the_last_blocks(stage):
    network = awaken(tiny(taps=(0, 1), deep=True)).train()
    network.begin_stage(stage)
    volume = torch.randn(1, 1, 3, 16, 16)
    if stage == 1:
        logits = [network.stage_one()(stack_slices(volume, slices=3))]
    else:
        logits = network(volume)
    sum(x.square().mean() for x in logits).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)


def test_without_deep_supervision_only_the_finest_head_learns():
    network = tiny()
    network.begin_stage(2, deep_supervision=False)
    *coarser, finest = network.decoder.seg_layers  # nnU-Net's order
    assert finest.in_channels == 4 and finest.weight.requires_grad
    assert not any(p.requires_grad for head in coarser for p in head.parameters())


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
    for a, b in zip(network.encode(volume), network.encode(other), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(network(volume), network(other))
    stage_one = FullSizeLogits(network, stage=1, heads=None)
    assert torch.equal(stage_one(volume), stage_one(other))


@pytest.mark.parametrize(("at_once", "largest"), [(None, 10), (4, 4), (1, 1), (99, 10)])
def test_stage_one_is_validated_in_parts_that_fit(at_once, largest):
    network = tiny().eval()
    seen = []
    network.encoder.encoder.vit.patch_embed.register_forward_pre_hook(
        lambda module, arguments: seen.append(len(arguments[0]))
    )
    volume = torch.randn(2, 1, 5, 16, 16)
    with torch.no_grad():
        whole = FullSizeLogits(network, stage=1, heads=None)(volume)
        seen.clear()
        found = FullSizeLogits(network, stage=1, heads=None, slices_at_once=at_once)(volume)
    assert max(seen) == largest and sum(seen) == 10
    assert torch.allclose(found, whole, atol=1e-5) and found.shape == (2, 3, 5, 16, 16)


@pytest.mark.parametrize(
    ("spacing", "plane", "token", "step"),
    [
        ((1.0, 1.0, 1.0), (56, 40), 4, 3),
        ((1.5, 1.0, 1.5), (56, 40), 4, 1),  # 4.5 mm across slices are more than 4 along rows
        ((4 / 3, 1.0, 1.0), (64, 40), 4, 3),
        ((1.0, 1.0, 1.0), (40, 256), 8, 3),
        ((2.5, 1.0, 1.0), (192, 160), 8, 3),
        ((5.0, 0.8, 0.8), (512, 512), 16, 1),
        ((0.8, 0.8), (512, 512), 16, 1),
    ],
)
def test_tokens_of_stock_plans(spacing, plane, token, step):
    assert token_side(*plane) == token
    assert slice_step(spacing, token) == step


def test_taps_are_at_half_and_three_quarters():
    assert [neck_taps(depth) for depth in (24, 12, 4, 2, 1)] == [
        (11, 17),
        (5, 8),
        (1, 2),
        (0,),
        (0,),
    ]
