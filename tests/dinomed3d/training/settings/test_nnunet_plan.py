"""What a configuration of a plan must hold before anything is built from it."""

from __future__ import annotations

from typing import Any

import pytest

from dinomed3d.runtime.errors import UserError
from dinomed3d.training.settings.nnunet_plan import check_configuration
from tests.dinomed3d.training.conftest import configuration

STOCK = configuration("3d_fullres", [6, 20, 16], [2.0, 1.0, 1.0])


def test_stock_plans_pass() -> None:
    check_configuration(STOCK)
    check_configuration(configuration("2d", [20, 16], [1, 1]))


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("patch_size", ([6, 20], [6, 20, True], None)),
        ("spacing", ([2.0, float("inf"), 1.0],)),
        ("batch_size", (2.0,)),
        ("architecture", ("PlainConvUNet", {"network_class_name": "x", "arch_kwargs": []})),
        ("batch_dice", ("no",)),
    ],
)
def test_what_cannot_be_trained_is_refused(field: str, values: tuple[Any, ...]) -> None:
    with pytest.raises(UserError, match=f"'{field}'"):
        check_configuration({k: v for k, v in STOCK.items() if k != field})
    for value in values:
        with pytest.raises(UserError, match=f"'{field}'"):
            check_configuration(STOCK | {field: value})


def test_a_recipe_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="'dinomed3d_recipe'"):
        check_configuration(STOCK | {"dinomed3d_recipe": []})
