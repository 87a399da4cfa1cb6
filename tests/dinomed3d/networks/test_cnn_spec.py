"""The CNN side's sizes: read from nnU-Net's plans, checked field by field."""

import pytest

from dinomed3d.networks import CnnSpec
from dinomed3d.runtime.errors import UserError

UNET = "dynamic_network_architectures.architectures.unet."
PLAN = dict(
    n_stages=3,
    features_per_stage=[32, 64, 128],
    conv_op="torch.nn.modules.conv.Conv3d",
    kernel_sizes=[[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    strides=[[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    n_conv_per_stage_decoder=[2, 1],
)


def test_of_a_plain_and_of_a_residual_plan():
    plain = CnnSpec.from_nnunet(UNET + "PlainConvUNet", PLAN | dict(n_conv_per_stage=[2, 2, 3]))
    assert plain == CnnSpec(
        widths=(32, 64, 128),
        strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
        kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
        blocks=(2, 2, 3),
        decoder_blocks=(2, 1),
        residual=False,
    )
    assert plain.cells == ((1, 1, 1), (1, 2, 2), (2, 4, 4))
    residual = CnnSpec.from_nnunet(
        UNET + "ResidualEncoderUNet", PLAN | dict(n_blocks_per_stage=[1, 3, 4])
    )
    assert residual.residual and residual.blocks == (1, 3, 4)


def test_of_a_2d_plan():
    flat = dict(
        features_per_stage=[8, 16],
        kernel_sizes=[[3, 3], [3, 3]],
        strides=[[1, 1], [2, 2]],
        n_conv_per_stage=[2, 2],
        n_conv_per_stage_decoder=[2],
    )
    found = CnnSpec.from_nnunet(UNET + "PlainConvUNet", flat)
    assert found.kernels == ((1, 3, 3),) * 2 and found.cells == ((1, 1, 1), (1, 2, 2))


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("somewhere.Primus", PLAN),
        (UNET + "PlainConvUNet", PLAN),  # n_conv_per_stage is missing
        (UNET + "PlainConvUNet", PLAN | dict(n_conv_per_stage=[2, 2])),
        (UNET + "PlainConvUNet", PLAN | dict(n_conv_per_stage=2)),
    ],
)
def test_plans_that_cannot_be_built_upon_are_refused(name, kwargs):
    with pytest.raises(UserError, match="plan"):
        CnnSpec.from_nnunet(name, kwargs)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        (dict(widths=(8,)), "'widths'"),
        (dict(widths=(8, 8, 8, 0)), "'widths'"),
        (dict(strides=((2, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))), "'strides'"),
        (dict(strides=((1, 1, 1), (3, 2, 2), (2, 2, 2), (2, 2, 2))), "'strides'"),
        (dict(kernels=((3, 3, 3), (2, 3, 3), (3, 3, 3), (3, 3, 3))), "'kernels'"),
        (dict(blocks=(1, 1, 1)), "'blocks'"),
        (dict(decoder_blocks=(1, 1)), "'decoder_blocks'"),
        (dict(residual=1), "'residual'"),
        (dict(widths=[8, 8, 8, "8"]), "'widths'"),
        (dict(strides=[1, 2, 2, 2]), "'strides'"),
        (dict(depth=3), "depth"),
    ],
    ids=str,
)
def test_impossible_sizes_are_refused(fields, name):
    with pytest.raises(UserError, match=name):
        CnnSpec.from_fields(fields)
