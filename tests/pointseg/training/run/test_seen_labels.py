"""Labels that the first epoch shows: when they are looked at, and what is refused or said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from lightning_fabric import Fabric

from dinomed3d.runtime.errors import UserError
from pointseg.cloud import Cloud
from pointseg.training.run.seen_labels import SeenLabels

NAMES = ("ground", "tree", "roof")


def batch(*labels: int) -> Cloud:
    count = len(labels)
    return Cloud(
        coord=torch.zeros(count, 3),
        grid_coord=torch.zeros(count, 3, dtype=torch.int64),
        feat=torch.zeros(count, 1),
        offset=torch.tensor([count]),
        segment=torch.tensor(labels),
    )


def seen(fabric: Any = None, **changes: int) -> SeenLabels:
    when = {"begin": 0, "epoch": 3, "validation": 5, **changes}
    return SeenLabels(fabric or Fabric(accelerator="cpu", devices=1), NAMES, **when)


def test_steps_without_labels_are_allowed_and_classes_without_points_are_named() -> None:
    found = seen()
    for step, labels in enumerate(((-1, -1), (1, 7, -1), (1, 0))):
        assert found.check(step) == ""
        found.add(step, batch(*labels))
    assert "no point of roof:" in found.check(3)
    found.add(3, batch(2, 2))  # the epoch has ended
    assert found.counts.tolist() == [1, 2, 0] and found.check(4) == ""


def test_all_classes_seen_is_not_said() -> None:
    found = seen(epoch=1)
    found.add(0, batch(0, 1, 2))
    assert found.check(1) == ""


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({}, 3),
        ({"validation": 2}, 2),  # before it replaces the best model of an earlier run
        ({"begin": 1, "validation": 2}, 4),  # what the first step saw is not known
        ({"begin": 40}, 43),
    ],
)
def test_no_label_at_all_is_refused(changes: dict[str, int], at: int) -> None:
    found = seen(**changes)
    for step in range(changes.get("begin", 0), at):
        assert found.check(step) == ""
        found.add(step, batch(-1, -1))
    with pytest.raises(UserError, match=rf"training clouds .* {at - found.begin} steps"):
        found.check(at)


def test_an_early_validation_names_no_classes() -> None:
    found = seen(validation=1)
    found.add(0, batch(1))
    assert found.check(1) == ""


def test_devices_decide_together() -> None:
    class Two:
        """This device, and another one that saw roofs."""

        world_size, device = 2, torch.device("cpu")

        def all_reduce(self, counts: torch.Tensor, reduce_op: str) -> torch.Tensor:
            assert reduce_op == "sum"
            return counts + torch.tensor([0, 0, 5])

    found = seen(Two())
    found.add(0, batch(-1))
    assert "no point of ground, tree:" in found.check(3)
