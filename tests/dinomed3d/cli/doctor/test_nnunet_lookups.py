"""What doctor says of classes that nnU-Net does not find."""

from __future__ import annotations

import pytest

from dinomed3d.cli.doctor.nnunet_lookups import _look_up


@pytest.mark.parametrize(
    ("error", "is_there", "says", "state"),
    [
        (RuntimeError, False, "not found", "note"),
        (RuntimeError, True, "import fails", "error"),  # so nnU-Net says of a broken module, too
        (ImportError, False, "import fails", "error"),
    ],
)
def test_a_class_that_nnunet_does_not_give(
    error: type[Exception], is_there: bool, says: str, state: str
) -> None:
    def find() -> None:
        raise error("no such trainer")

    finding = _look_up("trainer", find, present=is_there, fix="install it", state="note")
    assert says in finding.says and finding.state == state
    assert (finding.fix == "install it") == (says == "not found")
