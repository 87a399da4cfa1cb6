"""How training scenes are varied, as numbers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from pointseg.transforms import Augmentation


def test_the_defaults_are_those_of_the_published_configurations():
    found = asdict(Augmentation())
    assert found["rotate_xy_deg"] == pytest.approx(180 / 64)
    assert (found["drop_probability"], found["drop_fraction"]) == (0.2, 0.2)
    assert (found["jitter_m"], found["jitter_clip_m"]) == (0.005, 0.02)
    assert found["elastic"] == ((0.2, 0.4), (0.8, 1.6))


def test_it_survives_json():
    for augmentation in (Augmentation(), Augmentation.lidar(), Augmentation.none()):
        read = json.loads(json.dumps(asdict(augmentation)))
        read["elastic"] = tuple(map(tuple, read["elastic"]))
        assert Augmentation(**read) == augmentation


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            (f"{name}_probability", wrong)
            for name in
            ("drop", "rotate_z", "rotate_xy", "flip", "elastic", "contrast", "color_shift", "color_jitter")
            for wrong in (-0.1, 1.1, float("nan"))
        ],
        ("drop_fraction", 1.0),
        ("rotate_z_deg", 181.0),
        ("rotate_xy_deg", -1.0),
        ("scale_low", 0.0),
        ("scale_low", 1.2),
        ("scale_high", float("inf")),
        ("jitter_m", -0.1),
        ("jitter_clip_m", float("nan")),
        ("elastic", ((0.2,),)),
        ("elastic", ((0.0, 0.4),)),
        ("color_shift", 1.5),
        ("color_jitter", -0.1),
    ],
)  # fmt: skip
def test_every_number_is_checked(name, value):
    with pytest.raises(ValueError, match=f"Augmentation.*'{name}'"):
        replace(Augmentation(), **{name: value})
