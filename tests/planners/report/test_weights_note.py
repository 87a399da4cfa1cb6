"""Planning says whose weights training will ask for, where no file names them."""

from __future__ import annotations

import pytest

from dinomed3d.lifting.dino import OPEN_ENCODER
from dinomed3d.networks import NetworkSpec
from planners.report.weights_note import weights_note

SMALL, BASE = "vit_small_patch16_dinov3", "vit_base_patch16_dinov3"


def networks(**encoders: str) -> dict[str, NetworkSpec]:
    return {name: NetworkSpec(encoder=encoder) for name, encoder in encoders.items()}


WITHOUT = NetworkSpec(encoder=SMALL, components=("detail",))


def test_the_encoder_of_each_configuration_and_where_its_weights_come_from() -> None:
    note = " ".join(
        weights_note(networks(c_a=SMALL, c_b=BASE, c_c=SMALL) | {"c_d": WITHOUT}, {}).split()
    )
    assert "DINOMED3D_WEIGHTS is not set" in note
    assert f"{SMALL} (c_a, c_c) from timm/vit_small_patch16_dinov3_qkvb.lvd1689m" in note
    assert f"{BASE} (c_b) from timm/vit_base_patch16_dinov3_qkvb.lvd1689m" in note
    assert "DINOMED3D_WEIGHTS=FILE" in note
    assert f"DINOMED3D_WEIGHTS=hub and DINOMED3D_ENCODER={OPEN_ENCODER}" in note
    assert "c_d" not in note


def test_for_the_hub_the_note_names_what_will_be_downloaded() -> None:
    note = weights_note(networks(a="vit_base_patch14_dinov2"), {"DINOMED3D_WEIGHTS": "hub"})
    assert "timm/vit_base_patch14_dinov2.lvd142m" in note
    assert "licence" not in note and "not set" not in note


@pytest.mark.parametrize(
    "environ",
    [
        {"DINOMED3D_WEIGHTS": "none"},
        {"DINOMED3D_WEIGHTS": "/weights/file.pth"},
        {"DINOMED3D_START_FROM": "/models/fold_0"},
    ],
)
def test_weights_that_are_named_need_no_note(environ: dict[str, str]) -> None:
    assert weights_note(networks(a=SMALL), environ) == ""


def test_a_network_without_an_encoder_asks_for_no_weights() -> None:
    assert weights_note({"3d_fullres": WITHOUT}, {}) == ""
