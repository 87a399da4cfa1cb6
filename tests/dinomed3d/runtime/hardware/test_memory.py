"""How much memory a process may take, under control groups made by hand."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from dinomed3d.runtime.hardware import memory

GB = 10**9
FILES = {
    2: ("", "memory.max", "memory.current", ""),
    1: ("memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
}


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """8 GB available; control groups and the process's place in them are what a test writes."""
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * GB))
    monkeypatch.setattr(memory, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    return tmp_path


def group(machine, version, limit, usage, *, name="", stat=None):
    below, limit_file, usage_file, prefix = FILES[version]
    folder = machine / "cgroup" / f"{below}{name}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / limit_file).write_text(f"{limit}\n")
    (folder / usage_file).write_text(f"{usage}\n")
    if stat:
        lines = [f"{prefix}{key} {value}\n" for key, value in stat.items()]
        (folder / "memory.stat").write_text("cache 9000\n" + "".join(lines))


def test_no_groups(machine):
    assert memory.free_bytes() == 8 * GB


def test_the_address_space_that_is_allowed(machine, monkeypatch):
    held = psutil.Process().memory_info().vms
    monkeypatch.setattr("resource.getrlimit", lambda which: (held + 2 * GB, -1))
    assert memory.free_bytes() == pytest.approx(2 * GB, abs=GB // 10)
    monkeypatch.setattr("resource.getrlimit", lambda which: (held - GB, -1))
    assert memory.free_bytes() == 0


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("limit", "usage", "free"), [(3 * GB, 1 * GB, 2 * GB), ("max", 5, 8 * GB), (5, 9, 0)]
)
def test_the_limit_of_a_container(machine, version, limit, usage, free):
    group(machine, version, limit, usage)
    assert memory.free_bytes() == free


@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_files_count_as_free(machine, version):
    pages = {"inactive_file": 300_000_000, "active_file": 600_000_000}
    group(machine, version, 3 * GB, 2_900_000_000, stat=pages)
    assert memory.free_bytes() == GB


@pytest.mark.parametrize("version", [1, 2])
def test_every_group_above_counts(machine, version):
    own = "0::/slurm/job_1/step_0" if version == 2 else "7:cpu,memory:/slurm/job_1/step_0"
    (machine / "own").write_text(f"3:pids:/other\n{own}\n")
    group(machine, version, "max", 4 * GB)
    group(machine, version, 6 * GB, 3 * GB, name="slurm/job_1")
    group(machine, version, 5 * GB, 1 * GB, name="slurm/job_1/step_0")
    group(machine, version, 1, 1, name="other")
    assert memory.free_bytes() == 3 * GB


def test_inside_a_container_only_the_root_is_there(machine):
    (machine / "own").write_text("4:memory:/docker/0123\n0::/../..\n")
    group(machine, 1, 3 * GB, 1 * GB)
    assert memory.free_bytes() == 2 * GB


def test_what_is_taken_now():
    assert 2**20 < memory.resident_bytes() < 2**40
