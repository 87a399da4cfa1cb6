"""Tiny trained-looking nnU-Net models, in memory and as folders."""

import copy
import json

import numpy as np
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from tests.dinomed3d.training.conftest import LABELS, REGIONS, dataset_json, plans

CT = {
    "mean": 1.0,
    "std": 2.0,
    "median": 1.0,
    "min": -9.0,
    "max": 9.0,
    "percentile_00_5": -3.0,
    "percentile_99_5": 4.0,
}
SPACING = {"3d_fullres": [1.3, 1.1, 0.9], "2d": [1.1, 0.9], "anisotropic": [4.0, 1.1, 0.9]}
PATCH = {"3d_fullres": [16, 20, 24], "2d": [24, 20], "anisotropic": [4, 24, 20]}


def architecture(dim, features=(4, 8)):
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": len(features),
            "features_per_stage": list(features),
            "conv_op": f"torch.nn.modules.conv.Conv{dim}d",
            "kernel_sizes": [[3] * dim] * len(features),
            "strides": [[1] * dim] + [[2] * dim] * (len(features) - 1),
            "n_conv_per_stage": [1] * len(features),
            "n_conv_per_stage_decoder": [1] * (len(features) - 1),
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dim}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def tiny_plans(
    kind="3d_fullres", *, channels=1, scheme="ZScoreNormalization", masked=False, turned=True
):
    """A plan whose one configuration is `kind`; its axes are turned, so that turning is tested."""
    content = copy.deepcopy(plans())
    base = content["configurations"]["2d" if kind == "2d" else "3d_fullres"]
    base["spacing"], base["patch_size"] = SPACING[kind], PATCH[kind]
    base["normalization_schemes"] = [scheme] * channels
    base["use_mask_for_norm"] = [masked] * channels
    base["architecture"] = architecture(len(PATCH[kind]))
    content["configurations"] = {kind: base}
    axes = [1, 0, 2] if turned else [0, 1, 2]
    content["transpose_forward"] = content["transpose_backward"] = axes
    content["foreground_intensity_properties_per_channel"] = {str(i): CT for i in range(channels)}
    return content


def cascade_plans(*, channels=1, masked=True, **seg_options):
    """Plans of a low-resolution configuration and of the cascade that reads its labels."""
    content = tiny_plans("3d_fullres", channels=channels, masked=masked)
    fine = content["configurations"].pop("3d_fullres")
    fine["resampling_fn_seg_kwargs"].update(seg_options)
    low = copy.deepcopy(fine) | {"spacing": [2.1, 1.7, 1.6], "patch_size": [8, 16, 12]}
    low["next_stage"] = "3d_cascade_fullres"
    second = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    names = ("3d_lowres", "3d_fullres", "3d_cascade_fullres")
    content["configurations"] = dict(zip(names, (low, fine, second), strict=True))
    return content


def write_cascade(folder, *, labels=LABELS, channels=("MRI",), **options):
    """Both models of a cascade as nnU-Net lays them out; returns the folder of the second."""
    content = cascade_plans(channels=len(channels), **options)
    heads = 2 if labels == REGIONS else 3
    for seed, (name, inputs) in enumerate({"3d_lowres": 0, "3d_cascade_fullres": 2}.items()):
        model = folder / f"nnUNetTrainer__nnUNetPlans__{name}"
        (model / "fold_0").mkdir(parents=True)
        (model / "plans.json").write_text(json.dumps(content))
        (model / "dataset.json").write_text(json.dumps(tiny_dataset(labels, channels)))
        checkpoint = {
            "network_weights": tiny_network(
                3, len(channels) + inputs, heads, seed + 1
            ).state_dict(),
            "init_args": {"configuration": name},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": (0, 1),
        }
        torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
    return model


def tiny_dataset(labels=LABELS, channels=("MRI",)):
    content = dataset_json(labels)
    content["channel_names"] = {str(i): name for i, name in enumerate(channels)}
    return content


def tiny_network(dim, channels, heads, seed=1):
    """Random, with a last layer strong enough that labels differ from place to place."""
    torch.manual_seed(seed)
    conv, norm = (nn.Conv3d, nn.InstanceNorm3d) if dim == 3 else (nn.Conv2d, nn.InstanceNorm2d)
    network = PlainConvUNet(
        channels, 2, (4, 8), conv, 3, (1, 2), (1, 1), heads, (1,), True, norm,
        {"eps": 1e-5, "affine": True}, nonlin=nn.LeakyReLU, nonlin_kwargs={"inplace": True},
    )  # fmt: skip
    last = network.decoder.seg_layers[-1]
    nn.init.normal_(last.weight, std=1.0)
    nn.init.zeros_(last.bias)
    return network.eval()


def write_model(
    folder, kind="3d_fullres", *, labels=LABELS, channels=("MRI",), folds=("0",), mirroring=(0, 1),
    reader="SimpleITKIO", **options
):  # fmt: skip
    """A trained model as nnU-Net leaves it; returns its folder."""
    model = folder / f"nnUNetTrainer__nnUNetPlans__{kind}"
    model.mkdir(parents=True)
    content = tiny_plans(kind, channels=len(channels), **options)
    content["image_reader_writer"] = reader
    (model / "plans.json").write_text(json.dumps(content))
    (model / "dataset.json").write_text(json.dumps(tiny_dataset(labels, channels)))
    fingerprint = {
        "spacings": [[1.0, 1.0, 1.0], [2.0, 1.2, 1.2]],
        "shapes_after_crop": [[20, 30, 30], [40, 60, 60]],
        "foreground_intensity_properties_per_channel": {str(i): CT for i in range(len(channels))},
        "median_relative_size_after_cropping": 1.0,
    }
    (model / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    heads = 2 if labels == REGIONS else 3
    for number, fold in enumerate(folds):
        network = tiny_network(len(PATCH[kind]), len(channels), heads, seed=number + 1)
        (model / f"fold_{fold}").mkdir()
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {}, "param_groups": []},
            "grad_scaler_state": None,
            "logging": {"ema_fg_dice": [np.float64(0.5)], "lrs": [0.01]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 5,
            "init_args": {"configuration": kind, "fold": 0, "plans": content},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": mirroring,
        }
        torch.save(checkpoint, model / f"fold_{fold}" / "checkpoint_final.pth")
    return model
