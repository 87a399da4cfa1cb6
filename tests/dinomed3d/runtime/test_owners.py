"""Facts of this room have one owner: nobody else reads tensor files, replaces files or reads limits."""

from __future__ import annotations

import pytest

from tests import ROOT

OWNERS = {
    "torch.load(": {"dinomed3d/runtime/files/tensor_files.py"},
    "load_file(": {"dinomed3d/runtime/files/tensor_files.py"},
    "os.replace(": {"dinomed3d/runtime/files/atomic_files.py"},
    "os.fsync(": {"dinomed3d/runtime/files/atomic_files.py"},
    "virtual_memory(": {"dinomed3d/runtime/hardware/memory.py"},
    "/sys/fs/cgroup": {"dinomed3d/runtime/hardware/memory.py"},
    "def choose_device(": {"dinomed3d/runtime/hardware/device.py"},
    "allow_tf32 =": {"dinomed3d/runtime/hardware/device.py"},
    "print(json.dumps(": {"dinomed3d/runtime/commands/json_output.py"},
    '"--json"': {"dinomed3d/runtime/commands/json_output.py"},
    "class UserError(": {"dinomed3d/runtime/errors.py"},
}


@pytest.mark.parametrize("text", OWNERS)
def test_one_owner(text):
    found = {
        file.relative_to(ROOT).as_posix()
        for package in ("dinomed3d", "planners", "pointseg")
        for file in (ROOT / package).rglob("*.py")
        if text in file.read_text(encoding="utf-8")
    }
    assert found == OWNERS[text]
