"""What the memory has room for."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from pointseg.backbones import BACKBONES
from pointseg.training import memory


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """8 GB free, and a group of processes that may have what the test says."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 10**9))
    limit, usage = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "LIMITS", ((limit, usage, "total_"),))
    return limit, usage


def test_seven_tenths_of_what_is_free_at_eight_kilobytes_a_voxel(machine):
    assert memory.free_bytes() == 8 * 10**9
    assert memory.max_voxels() == 700_000


@pytest.mark.parametrize(
    ("limit", "usage", "free"),
    [("3000000000\n", "1000000000\n", 2 * 10**9), ("max\n", "5\n", 8 * 10**9), ("5", "9", 0)],
)
def test_limits_of_containers_count(machine, limit, usage, free):
    machine[0].write_text(limit)
    machine[1].write_text(usage)
    assert memory.free_bytes() == free


def test_files_that_were_read_make_room_when_asked(machine):
    machine[0].write_text("3000000000")
    machine[1].write_text("2900000000")
    stat = (
        "cache 9000\ninactive_file 7\ntotal_inactive_file 300000000\ntotal_active_file 600000000\n"
    )
    machine[1].with_name("memory.stat").write_text(stat)
    assert memory.free_bytes() == 10**9
    machine[1].with_name("memory.stat").write_text("cache 9000\n")
    assert memory.free_bytes() == 10**8


FULL = {"ptv3": 46_200_000, "minkunet": 39_200_000, "pointnext": 41_600_000}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_was_measured(machine, backbone):
    of_voxel, parameters = memory.TRAINING[backbone]
    assert parameters == FULL[backbone]
    expected = 1000 * of_voxel + 12 * parameters
    assert memory.training_bytes(backbone, 1000, FULL[backbone]) == expected


def insufficient_memory_warning(voxels, **changes):
    made = {"parameters": 46_200_000, "samples": 6, "parts": 2, **changes}
    return memory.insufficient_memory_warning("ptv3", voxels=voxels, **made)


def test_a_step_that_may_not_fit_is_told_with_what_would(machine):
    # 8 GB free, less 0.55 GB for 46 million parameters: room for 112,000 voxels of 66 kB.
    assert insufficient_memory_warning(110_000) is None
    said = insufficient_memory_warning(240_000)
    assert said.startswith(
        "a training step with 240000 voxels takes about 16.4 GB, 8.0 GB are free"
    )
    # 240,000 * 0.7 * 8.0 / 16.4 = 81,979: a third has 80,000, and 6 crops of 13,663 as much
    assert "--parts 6 or --override max_points=13663 would" in said


def test_processes_share_the_memory(machine):
    assert insufficient_memory_warning(100_000) is None
    assert "4.0 GB are free" in insufficient_memory_warning(100_000, devices=2)


def test_what_no_cut_would_help_is_told_without_one(machine):
    machine[0].write_text("100")
    machine[1].write_text("99")
    said = insufficient_memory_warning(5, samples=1)
    assert "--parts" not in said and "max_points" not in said and "0.0 GB are free" in said
