"""Networks with blocks made for CPUs against the same networks of nnU-Net as they are."""

import copy

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from dinomed3d.inference.nnunet import cpu_blocks
from dinomed3d.inference.nnunet.cpu_blocks import CpuBlock, PointwiseConv, moments, with_cpu_blocks
from dinomed3d.networks import CnnSpec, NetworkSpec, build_network


def unet(kind, axes, **changes):
    convolution = nn.Conv3d if axes == 3 else nn.Conv2d
    norm = nn.InstanceNorm3d if axes == 3 else nn.InstanceNorm2d
    torch.manual_seed(0)
    options = {
        "conv_bias": True,
        "norm_op": norm,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin": nn.LeakyReLU,
        "nonlin_kwargs": {"inplace": True},
    }
    strides = [1, [1] + [2] * (axes - 1), 2]
    built = kind(
        2, 3, [4, 8, 12], convolution, 3, strides, 2, num_classes=3, n_conv_per_stage_decoder=1,
        **(options | changes),
    )  # fmt: skip
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.5)
    return built.eval()


@pytest.mark.parametrize("kind", [PlainConvUNet, ResidualEncoderUNet])
@pytest.mark.parametrize("axes", [2, 3])
@torch.inference_mode()
def test_a_network_gives_the_same_logits(kind, axes, monkeypatch):
    monkeypatch.setattr(cpu_blocks, "CACHED_VALUES", 1000)  # several parts in a volume
    stock = unet(kind, axes)
    windows = 100 + 20 * torch.randn(2, 2, *(16, 24, 20)[-axes:])  # each normalised by itself
    expected = copy.deepcopy(stock).double()(windows.double())
    ours = with_cpu_blocks(copy.deepcopy(stock))
    kinds = [type(module) for module in ours.modules()]
    assert (
        CpuBlock in kinds and PointwiseConv in kinds and cpu_blocks.ConvDropoutNormReLU not in kinds
    )
    found = ours(windows)
    scale = expected.abs().max()
    assert (found - expected).abs().max() < 2 * (
        stock(windows) - expected
    ).abs().max() + 1e-6 * scale


@pytest.mark.parametrize(("residual", "blocks"), [(False, 5), (True, 11)])
@torch.inference_mode()
def test_the_cnn_of_a_dinomed3d_gives_the_same_logits(residual, blocks):
    torch.manual_seed(0)
    spec = NetworkSpec(
        encoder_overrides={"embed_dim": 24, "depth": 2, "num_heads": 2, "init_values": 1.0},
        taps=(0, 1),
        voxels_per_token=4,
        token_width=8,
        cnn=CnnSpec(
            widths=(4, 6, 8),
            strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
            kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
            blocks=(1, 1, 1),
            decoder_blocks=(1, 1),
            residual=residual,
        ),
    )
    stock = build_network(1, 3, **spec.to_arch_kwargs())
    for parameter in stock.parameters():  # zero-initialised parts too
        nn.init.normal_(parameter, std=0.1)
    stock.eval()
    windows = torch.randn(2, 1, 6, 16, 16)
    expected = copy.deepcopy(stock).double()(windows.double())
    ours = with_cpu_blocks(copy.deepcopy(stock))
    kinds = [type(module) for module in ours.modules()]
    assert kinds.count(CpuBlock) == blocks and cpu_blocks.ConvDropoutNormReLU not in kinds
    scale = expected.abs().max()
    assert (ours(windows) - expected).abs().max() < 2 * (
        stock(windows) - expected
    ).abs().max() + 1e-6 * scale


@pytest.mark.parametrize(
    "changes",
    [
        {"norm_op": nn.BatchNorm3d},
        {"norm_op_kwargs": {"affine": False}},
        {"nonlin": nn.ReLU},
        {"nonlin_first": True},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_another_block_stays_as_it_is(changes):
    kinds = {
        type(module) for module in with_cpu_blocks(unet(PlainConvUNet, 3, **changes)).modules()
    }
    assert CpuBlock not in kinds and cpu_blocks.ConvDropoutNormReLU in kinds


def test_a_network_of_others_stays_as_it_is():
    block = unet(PlainConvUNet, 3).encoder.stages[0][0].convs[0]
    network = nn.Sequential(block)
    assert with_cpu_blocks(network)[0] is block


def test_the_given_network_stays_as_it_is_and_can_be_trained_further():
    network = unet(PlainConvUNet, 3)
    kinds, keys = [type(module) for module in network.modules()], list(network.state_dict())
    made = with_cpu_blocks(network)
    assert (
        [type(module) for module in network.modules()] == kinds != [type(m) for m in made.modules()]
    )
    assert list(network.state_dict()) == keys
    network(torch.randn(1, 2, 16, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.encoder.parameters())
    of_network = {parameter.data_ptr() for parameter in network.parameters()}
    assert {parameter.data_ptr() for parameter in made.parameters()} < of_network  # none is a copy


def test_moments_of_parts_of_different_length():
    # 1, 3 | 8: mean 4, variance (9 + 1 + 16) / 3
    parts = (torch.tensor([[1.0], [3.0]]), torch.tensor([[8.0]]))
    mean, variance = moments(parts)
    assert (mean.item(), variance.item()) == pytest.approx((4, 26 / 3))
    torch.manual_seed(0)
    far = 1000 + torch.randn(2**15, 8)  # plain float32 sums would lose the digits that matter
    mean, _ = moments((far,))
    assert (mean - far.double().mean(0)).abs().max() < 2e-4
    assert moments(far.split(300))[1].sub(far.double().var(0, correction=0)).abs().max() < 1e-4
