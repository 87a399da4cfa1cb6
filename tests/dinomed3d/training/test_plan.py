"""What a configuration of a plan must hold before anything is built from it."""

from __future__ import annotations

from typing import Any

import pytest

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.plan import check_configuration
from tests.dinomed3d.training.conftest import configuration

STOCK = configuration("3d_fullres", [6, 20, 16], [2.0, 1.0, 1.0])


def test_stock_plans_pass() -> None:
    check_configuration(STOCK)
    check_configuration(configuration("2d", [20, 16], [1, 1]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"patch_size": [6, 20]}, "same number of axes"),
        ({"patch_size": [6, 20, True]}, "'patch_size' must be 2 or 3 positive whole numbers"),
        ({"patch_size": None}, "'patch_size' must be"),
        ({"spacing": [2.0, float("inf"), 1.0]}, "'spacing' must be"),
        ({"batch_size": 2.0}, "'batch_size' must be a positive whole number, got 2.0"),
        ({"architecture": "PlainConvUNet"}, "'architecture' must be an object"),
        (
            {"architecture": {"network_class_name": "x", "arch_kwargs": []}},
            "'architecture' must be",
        ),
        ({"batch_dice": "no"}, "'batch_dice' must be true or false, got 'no'"),
        ({"dinomed3d_recipe": []}, "'dinomed3d_recipe' must be a JSON object"),
    ],
)
def test_what_cannot_be_trained_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_configuration(STOCK | change)


@pytest.mark.parametrize(
    "lacking", ["patch_size", "spacing", "batch_size", "architecture", "batch_dice"]
)
def test_what_lacks_a_field_is_refused(lacking: str) -> None:
    with pytest.raises(UserError, match=f"'{lacking}' must be"):
        check_configuration({k: v for k, v in STOCK.items() if k != lacking})
