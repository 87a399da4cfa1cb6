"""What the memory has room for."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pointseg.backbones import BACKBONES
from pointseg.training.step import memory


@pytest.fixture
def machine(monkeypatch):
    """8 GB are free; a test may set another number."""
    free = SimpleNamespace(bytes=8 * 10**9)
    monkeypatch.setattr(memory, "free_bytes", lambda: free.bytes)
    return free


def test_seven_tenths_of_what_is_free_at_eight_kilobytes_a_voxel(machine):
    assert memory.max_voxels() == 700_000
    assert memory.max_voxels("utonia") == 311_111  # all stages joined: 18


FULL = {"ptv3": 46_200_000, "minkunet": 39_200_000, "pointnext": 41_600_000}
FULL |= {"sonata": 108_500_000, "utonia": 137_300_000, "litept": 12_700_000}


@pytest.mark.parametrize("backbone", [name for name in BACKBONES if name != "linear"])
def test_every_backbone_was_measured(machine, backbone):
    of_voxel, parameters = memory.TRAINING[backbone]
    assert parameters == FULL[backbone]
    expected = 1000 * of_voxel + 12 * parameters
    assert memory.training_bytes(backbone, 1000, FULL[backbone]) == expected


def insufficient_memory_warning(voxels, **changes):
    made = {"parameters": 46_200_000, "samples": 6, "accumulated": 2, **changes}
    return memory.insufficient_memory_warning("ptv3", voxels=voxels, **made)


def test_a_step_that_may_not_fit_is_warned_of_with_what_would(machine):
    # 8 GB free, less 0.55 GB for 46 million parameters: room for 112,000 voxels of 66 kB.
    assert insufficient_memory_warning(110_000) is None
    said = insufficient_memory_warning(240_000)
    assert said.startswith(
        "a training step with 240000 voxels needs about 16.4 GB of memory, but only 8.0 GB are free"
    )
    # 240,000 * 0.7 * 8.0 / 16.4 = 81,979: a third has 80,000, and 6 crops of 13,663 as much
    assert "--accumulate-grad-batches 6 or --override max_points=13663 or" in said


def test_no_estimate_for_a_backbone_that_was_not_measured(machine):
    machine.bytes = 1
    assert (
        memory.insufficient_memory_warning(
            "another", parameters=1, voxels=5, samples=1, accumulated=1
        )
        is None
    )


def test_processes_share_the_memory(machine):
    assert insufficient_memory_warning(100_000) is None
    assert "4.0 GB are free" in insufficient_memory_warning(100_000, devices=2)


def test_what_no_cut_would_help_is_warned_of_without_one(machine):
    machine.bytes = 1
    said = insufficient_memory_warning(5, samples=1)
    assert (
        "--accumulate-grad-batches" not in said
        and "max_points" not in said
        and "0.0 GB are free" in said
    )
