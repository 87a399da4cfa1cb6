"""What the memory has room for."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from pointseg.engine import budget


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """8 GB free, and a group of processes that may have what the test says."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 10**9))
    limit, usage = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(budget, "LIMITS", ((limit, usage),))
    return limit, usage


def test_seven_tenths_of_what_is_free_at_eight_kilobytes_a_voxel(machine):
    assert budget.free_bytes() == 8 * 10**9
    assert budget.affordable_voxels() == 700_000


@pytest.mark.parametrize(
    ("limit", "usage", "free"),
    [("3000000000\n", "1000000000\n", 2 * 10**9), ("max\n", "5\n", 8 * 10**9), ("5", "9", 0)],
)
def test_limits_of_containers_count(machine, limit, usage, free):
    machine[0].write_text(limit)
    machine[1].write_text(usage)
    assert budget.free_bytes() == free
