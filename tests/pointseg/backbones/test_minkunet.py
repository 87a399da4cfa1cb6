"""MinkUNet: Pointcept's numbers, invariances, levels, errors."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pointseg.backbones.minkunet import MinkUNet
from pointseg.cloud import Cloud, collate


def golden_cloud(values) -> Cloud:
    grid_coord = torch.from_numpy(values["grid_coord"])
    return Cloud(
        coord=grid_coord * 0.02,
        grid_coord=grid_coord,
        feat=torch.from_numpy(values["feat"]),
        offset=torch.from_numpy(values["offset"]),
    )


@pytest.fixture
def golden(shared):
    folder = shared / "golden" / "sparse_unet"
    config = json.loads((folder / "config.json").read_text())
    net = MinkUNet(**config)
    net.load_state_dict(load_file(folder / "weights.safetensors"))
    return net.eval(), np.load(folder / "io.npz")


@pytest.mark.data
def test_as_pointcept(golden):
    net, values = golden
    with torch.no_grad():
        feat = net(golden_cloud(values)).feat
    assert torch.allclose(feat, torch.from_numpy(values["out"]), atol=1e-4)
