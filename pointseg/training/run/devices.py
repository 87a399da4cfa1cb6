"""On how many devices and machines a run takes place, and which process reports."""

from __future__ import annotations

import os


def devices_and_nodes(devices: int) -> tuple[int, int]:
    """Devices per machine, and machines: as torchrun says, else ``devices`` on this one."""
    world, local = (int(os.environ.get(name, 0)) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    return (local, world // local) if local else (devices, 1)


def is_main_process() -> bool:
    """Whether this is the process that reports, among those that torchrun started."""
    return not int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))


def loader_workers(asked: int | None) -> int:
    """Processes that load data: as asked, else one less than there are cores, at most 8."""
    return min(8, (os.cpu_count() or 1) - 1) if asked is None else asked
